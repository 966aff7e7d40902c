import tomllib
from pathlib import Path

import pytest

from pipeline.config import SECTIONS, load_config
from schemas.settings import SECTION_NAMES, ConfigError
from tests.corpus import ROOT

CONFIGS = sorted((ROOT / "configs").rglob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[str(path.relative_to(ROOT)) for path in CONFIGS])
def test_every_config_that_comes_with_the_project_loads(path):
    assert load_config(path).run.startswith("runs/")


def test_the_resolved_config_states_every_value_and_loads_as_itself(tmp_path: Path):
    config = load_config(ROOT / "configs" / "tiny.toml", assignments=["length.min_chars=7", "seed=5"])
    (tmp_path / "resolved.toml").write_bytes(config.to_toml())
    again = load_config(tmp_path / "resolved.toml")
    assert again == config
    document = tomllib.loads(config.to_toml().decode())
    bounds = {"min_chars": 7, "max_chars": 8000, "min_turns": 1, "max_turns": 10_000}
    assert document["length"].items() > bounds.items()
    assert list(document)[2:] == list(SECTIONS)


def test_tables_in_sections_are_resolved_as_well_and_what_is_not_set_is_left_out(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text(
        '[[source.sets]]\ninputs = ["a.jsonl"]\nlimit = 9\n[length.user]\nmin_chars = 10\n'
        '[[length.scripts]]\nscript = "han"\nmore_than = 0.5\n[[dedup.caps]]\nmatch = "source:*"\nlimit = 5\n'
    )
    config = load_config(path)
    (tmp_path / "resolved.toml").write_bytes(config.to_toml())
    assert load_config(tmp_path / "resolved.toml").sections == config.sections
    document = tomllib.loads(config.to_toml().decode())
    assert document["length"]["user"] == {"min_chars": 10, "min_bytes": 0, "min_turns": 0}
    assert document["source"]["sets"][0]["limit"] == 9


def test_the_seed_of_the_run_is_the_splits_unless_it_has_its_own(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text("seed = 4\n")
    config = load_config(path)
    assert config.sections["dedup"].seed == 4
    assert config.sections["signatures"].seed == 1  # datasketch's, so that others can use the signatures
    assert load_config(path, assignments=["dedup.seed=9"]).sections["dedup"].seed == 9


def test_the_limit_of_a_conversation_is_that_of_a_pack_unless_it_has_its_own(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text("[pack]\nmax_seq_len = 512\n")
    assert load_config(path).sections["tokenize"].max_seq_len == 512
    assert load_config(path, assignments=["tokenize.max_seq_len=100"]).sections["tokenize"].max_seq_len == 100


def test_a_threshold_of_a_scope_that_is_not_compared_is_refused(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text("[clusters]\nthresholds = {prompt = 0.95}\n")
    with pytest.raises(
        ConfigError, match=r'thresholds names "prompt".*\[signatures\] scope is "conversation"\. Add "prompt"'
    ):
        load_config(path)
    clusters = load_config(path, assignments=['signatures.scope=["prompt", "turns"]']).sections["clusters"]
    assert (clusters.threshold_of("prompt"), clusters.threshold_of("turns")) == (0.95, 0.8)


def test_a_threshold_too_low_for_the_sketches_is_refused_before_any_is_made(tmp_path: Path):
    path = tmp_path / "a.toml"
    low = "[clusters]\nthresholds = {prompt = 0.05}\n[signatures]\nscope = ['conversation', 'prompt']\n"
    path.write_text(low)
    with pytest.raises(ConfigError, match=r"threshold=0.05 cannot be found with recall=0.999 from 128 MinHash values"):
        load_config(path)
    path.write_text(low + "num_perm = 1024\n")
    assert load_config(path).sections["clusters"].thresholds == {"prompt": 0.05}


def test_a_criterion_that_goes_by_the_records_needs_the_key_in_them(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text('[clusters]\nkeep = ["newest", "score"]\n')
    with pytest.raises(
        ConfigError, match=r'keep names "newest", but \[ingest\] created is not set.*created = "timestamp"'
    ):
        load_config(path)
    with pytest.raises(ConfigError, match=r'keep names "score", but \[ingest\] score is not set'):
        load_config(path, assignments=["ingest.created=at"])
    assert load_config(path, assignments=["ingest.created=at", "ingest.score=s"]).sections["ingest"].score == "s"


@pytest.mark.parametrize("without_stop", ["train", "mask", "drop"])
def test_answers_may_be_cut_where_the_mask_knows_what_to_do_with_them(tmp_path: Path, without_stop):
    path = tmp_path / "c.toml"
    path.write_text(f"[tokenize]\ncut_answers = true\n[mask]\nwithout_stop = '{without_stop}'\n")
    assert load_config(path).sections["tokenize"].cut_answers


@pytest.mark.parametrize("weighed", ["preset = 'partial'", "weights = {user = {content = 0.5}}", "preset = 'none'"])
def test_a_scoped_rule_may_weigh_what_the_mask_weighs(tmp_path: Path, weighed):
    path = tmp_path / "c.toml"
    path.write_text(f"[[render.scoped]]\npattern = 'x'\nweight = 2\nrole = 'user'\n[mask]\n{weighed}\n")
    assert load_config(path).sections["render"].scoped[0].role == "user"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[lenght]\nmin_chars = 1", "unknown section 'lenght'; did you mean 'length'?"),
        ("sed = 1", "unknown key 'sed'; did you mean 'seed'?"),
        ("seed = -1", "seed = -1: expected a whole number >= 0"),
        ("run = 3", "run = 3: expected the path of a directory"),
        ("[mask]\npreset = 'ful'", "[mask] preset = 'ful': invalid enum value 'ful'"),
        ("[tokenize]\nmax_seq_len = 4096", "[tokenize] max_seq_len = 4096 exceeds [pack] max_seq_len = 2048"),
        (
            "[tokenize]\ncut_answers = true",
            'without_stop = "refuse" stops the build at the first of them; set it to "train"',
        ),
        (
            "[[render.scoped]]\npattern = 'x'\nweight = 2\nrole = 'user'",
            "rule 1 (pattern 'x') multiplies the weight of 'content' of 'user', which [mask] sets to 0",
        ),
        ("[clusters]\nkeep = 'source'", ': [clusters] keep = "source" needs priority'),
        ("[pack]\nmax_seq_len = '2k'", "[pack] max_seq_len = '2k': expected `int`, got `str`"),
        ("[train]\nlearning_rate = 1", "[train] unknown key 'learning_rate'"),
    ],
)
def test_a_wrong_config_says_what_and_where(tmp_path: Path, text, said):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)


def test_the_names_that_the_trainer_checks_are_the_sections():
    assert tuple(SECTIONS) == SECTION_NAMES
