"""One row of any stage, as a person reads it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from rich.text import Text

from schemas.manifest import FileRecord, read_manifest
from schemas.reasons import EXPLANATIONS, DropReason
from schemas.settings import ConfigError, suggest

_ROLE_STYLES: Final = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}
_CLASS_STYLES: Final = {
    "content": "",
    "reasoning": "italic",
    "tool_call": "bold",
    "tool_result": "yellow",
    "stop": "reverse",
    "scaffold": "underline",
    "generation_prompt": "dim italic",
    "tools": "yellow",
    "template": "dim",
}
_TRAINED, _UNTRAINED = "bold black on green", "dim"
_OPEN, _CLOSE = "⟦", "⟧"


def look(
    run: Path,
    stage: str,
    *,
    row: int,
    id: str | None,  # noqa: A002 - the switch's name
    dropped: bool,
    in_colour: bool,
) -> Iterator[Text]:
    """Yield the parts of one row of a stage; without colour, brackets mark what is trained.

    Raises ConfigError when there is no such run, stage, row or id.
    """
    manifest = read_manifest(run, stage)
    if manifest is None:
        config = run / "config.toml" if (run / "config.toml").is_file() else f"CONFIG --run {run}"
        raise ConfigError(
            f"{run / stage}: not built, or not up to date; `chatloom data {config} --until {stage}` builds it"
        )
    half = "dropped" if dropped else "kept"
    files = [file for shard in manifest.shards for file in shard.files if file.path.startswith(half)]
    total = sum(file.rows for file in files)
    if not total:
        raise ConfigError(f"{run / stage}: no {half} rows")
    found = _row(run / stage, files, row) if id is None else _find(run / stage, files, id)
    if found is None and id is not None:
        found = _find(run / stage, files, f"{id}#1")  # it was cut into windows: show the first
    if found is None:
        if id is None:
            raise ConfigError(f"{run / stage}: {half} rows are numbered 0 to {total - 1}; got {row}")
        raise ConfigError(f"{run / stage}: no {half} row has the id {id!r}. {_fate(run, id)}")
    number, values = found
    yield Text(f"{stage}, {half} row {number} of {total:,}", "bold")
    yield from _describe(run, stage, values, in_colour=in_colour)


def _describe(run: Path, stage: str, values: dict[str, Any], *, in_colour: bool) -> Iterator[Text]:
    if values.get("drop_reason"):
        yield from _why(run, values)
    for name, value in values.items():
        if name in ("drop_reason", "detail", "messages", "text", "spans", "input_ids", "labels", "loss_weights"):
            continue
        if value is not None and value != []:
            yield Text.assemble((f"{name}: ", "dim"), printable(_short(value)))
    if values.get("messages"):
        yield from _messages(values["messages"])
    elif values.get("text"):
        yield from _text(values["text"], values["spans"])
    elif values.get("input_ids"):
        yield from _tokens(run, stage, values, in_colour=in_colour)


def _why(run: Path, values: dict[str, Any]) -> Iterator[Text]:
    reason = DropReason(values["drop_reason"])
    yield Text.assemble(("dropped: ", "bold red"), (reason.value, "bold red"), f": {EXPLANATIONS[reason]}")
    if values.get("detail"):
        yield Text.assemble(("detail: ", "dim"), printable(values["detail"]))
    if values.get("keeper"):
        manifest = read_manifest(run, "length")
        files = [file for shard in manifest.shards for file in shard.kept_files()] if manifest else []
        keeper = _find(run / "length", files, values["keeper"])
        if keeper is not None:
            yield Text(f"kept in its place: {values['keeper']} (similarity {values['similarity']:.3f})", "bold")
            yield from _messages(keeper[1]["messages"])
            yield Text("this one:", "bold")


def _messages(messages: list[dict[str, Any]]) -> Iterator[Text]:
    for message in messages:
        role = message["role"]
        yield Text(role, f"bold {_ROLE_STYLES.get(role, '')}".strip())
        for key, style in (("reasoning", "italic"), ("content", ""), ("tool_calls", "bold")):
            if message.get(key):
                yield Text(printable(message[key]), style)


def _text(text: str, spans: list[dict[str, Any]]) -> Iterator[Text]:
    yield Text.assemble("who wrote it: ", *((f" {name} ", style) for name, style in _CLASS_STYLES.items()))
    out = Text()
    for span in spans:
        style = " ".join(filter(None, [_ROLE_STYLES.get(span["role"], ""), _CLASS_STYLES[span["class"]]]))
        out.append(printable(text[span["start"] : span["end"]]), style)
    yield out


def _tokens(run: Path, stage: str, values: dict[str, Any], *, in_colour: bool) -> Iterator[Text]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(run / "tokenizer" / "tokenizer.json"))
    ids, labels = values["input_ids"], values.get("labels")
    weights = values.get("loss_weights")
    if weights is None:
        flags = [label != -100 for label in labels] if labels else [span_of >= 0 for span_of in _message_of(values)]
        weights = [float(flag) for flag in flags]
    note = "trained tokens" if labels else "tokens that a message wrote"
    how = "in colour: " if in_colour else f"between {_OPEN} and {_CLOSE}: "
    n_marked = sum(weight > 0 for weight in weights)
    yield Text.assemble((how, "dim"), (note, _TRAINED), (f" ({n_marked:,} of {len(ids):,})", "dim"))
    lengths = values.get("seq_lengths") or [len(ids)]
    first = 0
    for position, length in enumerate(lengths):
        if stage == "pack":
            yield Text(f"--- {values['ids'][position]}: {length} tokens", "bold blue")
        part = slice(first, first + length)
        yield _marked(tokenizer, ids[part], weights[part], in_colour=in_colour)
        first += length


def _message_of(values: dict[str, Any]) -> list[int]:
    return [span["message"] for span in values["spans"] for _ in range(span["end"] - span["start"])]


def _marked(tokenizer: Any, ids: list[int], weights: list[float], *, in_colour: bool) -> Text:
    """Return the tokens as text; those with a weight are marked, and a weight other than 1 stands behind them."""
    out = Text()
    first = 0
    # Runs are decoded whole: a character may be spread over several tokens.
    for i in range(1, len(ids) + 1):
        if i == len(ids) or weights[i] != weights[first]:
            piece, weight = printable(tokenizer.decode(ids[first:i], skip_special_tokens=False)), weights[first]
            if weight > 0 and not in_colour:
                piece = f"{_OPEN}{piece}{_CLOSE}"
            out.append(piece, _TRAINED if weight > 0 else _UNTRAINED)
            if weight not in (0, 1):
                out.append(f"×{weight:.3g}", "bold yellow")
            first = i
    return out


def printable(text: str) -> str:
    """Return `text` with every character shown that could move the cursor, change colours or reorder the line."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


def _short(value: Any) -> str:
    shown = value.hex() if isinstance(value, bytes) else str(value)
    return shown if len(shown) <= 300 else f"{shown[:300]}... ({len(value):,} in all)"


def _row(directory: Path, files: list[FileRecord], row: int) -> tuple[int, dict[str, Any]] | None:
    position = row
    for file in files:
        if 0 <= position < file.rows:
            return row, _values(directory / file.path, position)
        position -= file.rows
    return None


def _find(directory: Path, files: list[FileRecord], wanted: str) -> tuple[int, dict[str, Any]] | None:
    first = 0
    for file in files:
        with pa.memory_map(str(directory / file.path)) as source:
            table = pa.ipc.open_file(source).read_all()
            if "ids" in table.column_names:
                column = table["ids"].combine_chunks()
                at = pc.index(column.flatten(), wanted).as_py()
                at = column.value_parent_indices()[at].as_py() if at >= 0 else -1
            else:
                at = pc.index(table["id"], wanted).as_py()
        if at >= 0:
            return first + at, _values(directory / file.path, at)
        first += file.rows
    return None


def _values(path: Path, row: int) -> dict[str, Any]:
    with pa.memory_map(str(path)) as source:
        frame = pl.from_arrow(pa.ipc.open_file(source).read_all().slice(row, 1))
    assert isinstance(frame, pl.DataFrame)
    return frame.row(0, named=True)


def _fate(run: Path, wanted: str) -> str:
    """Say where a conversation was dropped, or what ids look like."""
    some: list[str] = []
    for stage in ("pack", "mask", "tokenize", "render", "dedup", "length", "ingest"):
        manifest = read_manifest(run, stage)
        if manifest is None:
            continue
        files = [file for shard in manifest.shards for file in shard.files if file.path.startswith("dropped")]
        found = _find(run / stage, files, wanted)
        if found is not None:
            return f"It was dropped by {stage}: {found[1]['drop_reason']} (chatloom look {run} {stage} --dropped --id {wanted!r})"
        if stage == "ingest":
            some = [_values(run / stage / f.path, 0)["id"] for s in manifest.shards for f in s.kept_files() if f.rows]
    return suggest(wanted, some[:10]) if some else "Ids are <source path>:<line>"


__all__ = ["look", "printable"]
