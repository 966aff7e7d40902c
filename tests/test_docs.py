"""The documents say what the code does."""

import json
import re

import pytest

from pipeline.config import SECTIONS
from pipeline.describe import config_schema, documents, field_docs, nested, setting_docs
from stages.ingest.messages import ROLES
from tests.corpus import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "DECISIONS.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("name", documents())
def test_generated_documents_are_up_to_date(name):
    assert (ROOT / name).read_text(encoding="utf-8") == documents()[name], "run `python -m pipeline.describe`"


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_is_documented(section):
    kind = SECTIONS[section]
    assert set(field_docs(kind)) == set(kind.__struct_fields__)


@pytest.mark.parametrize("kind", nested(), ids=lambda kind: kind.__name__)
def test_every_setting_of_a_table_inside_a_section_is_documented(kind):
    """Also those that only say again what the section says."""
    section = nested()[kind][0][0].partition(".")[0]
    assert set(setting_docs(kind, section)) == set(kind.__struct_fields__)
    assert config_schema()["$defs"][kind.__name__]["additionalProperties"] is False


def test_tables_inside_sections_are_named_as_they_are_written():
    text = documents()["docs/configuration.md"]
    for heading in ("### [[source.sets]]", "### [source.sets.mapping], [ingest.mapping]", "### [[train.phases]]"):
        assert f"\n{heading}\n" in text
    assert text.index("## [ingest]") < text.index("### [source.sets.mapping]") < text.index("## [length]")
    sets = text[text.index("### [[source.sets]]") : text.index("## [ingest]")]
    assert "| `inputs` | required | " in sets
    assert "| `tags` | `[]` | " in sets
    assert '| `class` | `"content"` | ' in text


def test_the_published_contract_names_the_roles_that_are_read():
    schema = json.loads((ROOT / "schemas" / "conversation.schema.json").read_text())
    assert set(schema["$defs"]["message"]["properties"]["role"]["enum"]) == set(ROLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_the_documents_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_is_linked_from_another():
    text = {page: page.read_text(encoding="utf-8") for page in PAGES}
    for page in (ROOT / "docs").glob("*.md"):
        assert any(
            f"{page.name})" in text[other] or f"{page.name}#" in text[other] for other in PAGES if other != page
        ), page


def test_the_table_of_the_trainer_names_each_of_its_modules():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("## The trainer") : text.index("## Adding a stage")]
    named = {word for words in re.findall(r"`([^`]+)`", table) for word in re.split(r"[/{},]+", words)}
    home = ROOT / "trainer"
    modules = {path.stem for path in (*home.glob("*.py"), *home.glob("data/*.py")) if not path.stem.startswith("__")}
    assert modules - named == set()
    assert {path.name for path in home.iterdir() if (path / "__init__.py").exists()} <= named


def test_the_python_of_the_readme_runs_as_written(tmp_path, monkeypatch):
    """Against a run of the bundled sample, in a directory laid out as the project's."""
    from pipeline.config import load_config
    from pipeline.run import build

    monkeypatch.chdir(ROOT)
    build(load_config(ROOT / "configs" / "tiny.toml", run=str(tmp_path / "runs" / "tiny")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - our own document
