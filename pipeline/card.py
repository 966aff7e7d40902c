"""The dataset card: makes a run directory a data set that `datasets.load_dataset` opens, and says what is in it."""

from collections.abc import Iterator, Sequence
from html import escape

from pipeline.config import Config
from pipeline.counts import Section, records_sentence, sections
from pipeline.describe import column_row
from pipeline.excerpt import visible
from pipeline.fates import contamination, splits_sentence
from pipeline.graph import GRAPH, Stage
from pipeline.source import Source
from schemas.manifest import Manifest


def dataset_card(config: Config, manifests: dict[str, Manifest]) -> str:
    """Return the text of the run's README.md: one configuration per stage, the packs by default, and the funnel."""
    stages = [stage for stage in GRAPH if stage.name in manifests]
    lines = ["---", "configs:"]
    for stage in reversed(stages):
        lines += _config(stage, manifests[stage.name], is_default=stage is stages[-1])
    lines += ["---", "", "# Training shards made by Chatloom", ""]
    lines += [*_inputs(config.source), ""]
    lines += ["| stage | conversations in | kept | dropped | tokens kept |", "|---|--:|--:|---|--:|"]
    for stage in stages:
        totals = manifests[stage.name].totals
        dropped = ", ".join(f"{reason} {n:,}" for reason, n in totals.dropped.items()) or "-"
        tokens = f"{totals.tokens:,}" if totals.tokens else ""
        lines.append(f"| {stage.name} | {totals.rows_in:,} | {totals.kept:,} | {dropped} | {tokens} |")
    said_of_all = (records_sentence(manifests), splits_sentence(manifests))
    for said in (*filter(None, said_of_all), *contamination(manifests)):
        lines += ["", f"{said[:1].upper()}{said[1:]}."]
    for section in sections(manifests):
        lines += ["", f"{section.title[:1].upper()}{section.title[1:]}:", "", *_markdown(section)]
    lines += [
        "",
        "```python",
        "import polars as pl",
        f'pl.scan_ipc("{config.run}/mask/kept/*.arrow").select("id", "n_tokens", "n_supervised").collect()',
        "",
        "from datasets import load_dataset",
        f'load_dataset("{config.run}")          # packs',
        f'load_dataset("{config.run}", "mask")  # any stage',
        "```",
        "",
    ]
    last = manifests[stages[-1].name]
    if last.added_tokens:
        named = ", ".join(f"`{text}` ({i})" for text, i in last.added_tokens.items())
        lines += [f"Added to the tokenizer, because the chat template declares them: {named}.", ""]
    lines += [f"The last stage's key is `{last.key}`: the same key means the same bytes.", ""]
    lines += _columns(stages[-1])
    return "\n".join(lines)


def _config(stage: Stage, manifest: Manifest, *, is_default: bool) -> list[str]:
    splits: dict[str, str] = {}
    for shard in manifest.shards:
        for file in shard.kept_files():
            part = file.path.split("/")[1]
            splits["train" if part.endswith(".arrow") else part] = file.path.rpartition("/")[0]
    files = ", ".join(
        f"{{split: {split}, path: {stage.name}/{path}/*.arrow}}" for split, path in sorted(splits.items())
    )
    default = ["  default: true"] if is_default else []
    return [f"- config_name: {stage.name}", *default, f"  data_files: [{files}]"]


def _inputs(source: Source) -> Iterator[str]:
    """Yield a line of the inputs, and for each set one of its own, with its tags."""
    if source.inputs or not source.sets:
        yield f"Inputs: {_codes(source.inputs)}"
    for number, each in enumerate(source.sets, 1):
        yield f"- Set {number}: {_codes(each.inputs)}" + (f", tagged {_codes(each.tags)}" if each.tags else "")


def _codes(texts: Sequence[str]) -> str:
    """Return texts as code, side by side."""
    return ", ".join("`" + visible(text).replace("`", r"\x60") + "`" for text in texts)


def _markdown(section: Section) -> list[str]:
    rule = "|".join("---" if i < section.n_names else "--:" for i in range(len(section.headings)))
    rows = (" | ".join(map(_cell, row)) for row in (section.headings, *section.rows))
    heading, *others = (f"| {row} |" for row in rows)
    return [heading, f"|{rule}|", *others]


def _cell(text: str) -> str:
    """Return text that is in no case markup, as a cell."""
    return escape(text, quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`")


def _columns(stage: Stage) -> list[str]:
    head = [f"## Columns of {stage.name}", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
    return [*head, *(column_row(column) for column in stage.writes), ""]
