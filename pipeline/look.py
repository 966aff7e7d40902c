"""One row of any stage, as a person reads it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from pipeline.counts import explain
from pipeline.excerpt import printable
from pipeline.rows import Row, conversations, fate, files_of, find, find_part, find_reason, need_manifest, row_at
from schemas.manifest import FileRecord
from schemas.reasons import EXPLANATIONS, DropReason
from schemas.settings import ConfigError

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
_SHOWN_APART: Final = frozenset(
    ("drop_reason", "reason", "detail", "messages", "text", "spans", "input_ids", "labels", "loss_weights")
)
_OPEN, _CLOSE = "⟦", "⟧"


def look(
    run: Path,
    stage: str,
    *,
    row: int,
    id: str | None,  # noqa: A002 - the switch's name
    dropped: bool,
    in_colour: bool,
    reason: str | None = None,
) -> Iterator[Text]:
    """Yield the parts of one row of a stage; without colour, brackets mark what is trained.

    With a `reason`, `row` counts the rows that were dropped for it. Raises ConfigError when there is no such run, stage, row,
    id or reason.
    """
    manifest = need_manifest(run, stage)
    half = "dropped" if dropped or reason is not None else "kept"
    files = files_of(manifest, half)
    total = sum(file.rows for file in files)
    if reason is not None:
        if id is not None:
            raise ConfigError("--reason names some row that was dropped, --id a certain one; give one of them")
        _, values = _dropped_for(reason, row, run / stage, files, manifest.totals.dropped)
        yield Text(f"{stage}, row {row} of the {manifest.totals.dropped[reason]:,} dropped as {reason}", "bold")
        yield from _describe(run, stage, values, in_colour=in_colour)
        return
    if not total and id is None:
        raise ConfigError(f"{run / stage}: no {half} rows")
    found = row_at(run / stage, files, row) if id is None else find(run / stage, files, id)
    if found is None and id is not None:
        found = find_part(run / stage, files, id)  # a record of several, or cut into windows: show the first
    if found is None:
        if id is None:
            raise ConfigError(f"{run / stage}: {half} rows are numbered 0 to {total - 1}; got {row}")
        raise ConfigError(f"{run / stage}: no {half} row has the id {id!r}. {fate(run, id)}")
    number, values = found
    yield Text(f"{stage}, {half} row {number} of {total:,}", "bold")
    yield from _describe(run, stage, values, in_colour=in_colour)


def _dropped_for(
    reason: str, row: int, directory: Path, files: Sequence[FileRecord], counts: Mapping[str, int]
) -> tuple[int, Row]:
    """Return (number, values) of a row that was dropped for a reason. Raises ConfigError, naming the reasons that there are."""
    found = find_reason(directory, files, reason, row) if counts.get(reason) else 0
    if isinstance(found, tuple):
        return found
    if found:
        raise ConfigError(f"{directory}: rows dropped as {reason} are numbered 0 to {found - 1}; got {row}")
    there = ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items(), key=lambda pair: -pair[1])) or "none"
    raise ConfigError(f"{directory}: no row was dropped as {reason!r}; reasons here: {there}")


def _describe(run: Path, stage: str, values: Row, *, in_colour: bool) -> Iterator[Text]:
    yield from _why(values)
    beside = _beside(values)
    found = conversations(run, [*beside, *([values["id"]] if stage == "clusters" else [])])
    for id_, what in beside.items():
        yield Text(printable(f"{what}: {id_}"), "bold")
        yield from _messages(found[id_]["messages"]) if id_ in found else [Text("its text is not at hand", "dim")]
    if beside:
        yield Text("this one:", "bold")
    for name, value in values.items():
        if name in _SHOWN_APART or (name, stage) == ("tags", "pack"):
            continue
        if value is not None and value != []:
            yield Text.assemble((f"{name}: ", "dim"), printable(_SAID.get(name, _short)(value)))
    if stage == "clusters" and values["id"] in found:
        yield from _messages(found[values["id"]]["messages"])
    elif values.get("messages"):
        yield from _messages(values["messages"])
    elif values.get("text"):
        yield from _text(values["text"], values["spans"])
    elif values.get("input_ids"):
        yield from _tokens(run, stage, values, in_colour=in_colour)


def _why(values: Row) -> Iterator[Text]:
    for what, column in (("dropped", "drop_reason"), ("dedup drops it", "reason")):  # which does what clusters decide
        if values.get(column):
            reason = DropReason(values[column])
            yield Text.assemble((f"{what}: {reason.value}", "bold red"), f": {EXPLANATIONS[reason]}")
    if values.get("detail"):
        yield Text.assemble(("detail: ", "dim"), printable(values["detail"]))


def _beside(values: Row) -> dict[str, str]:
    """Return the ids of the conversations that a row has to be seen beside, and what they are to it."""
    beside: dict[str, str] = {}
    if values.get("evaluation") and values.get("overlap") is not None:
        beside[values["evaluation"]] = f"it contains {values['overlap']:.3f} of the evaluation record"
    if values.get("keeper") and values.get("similarity") is not None:
        scope = f" in scope {values['scope']}" if values.get("scope") else ""
        reason = values.get("drop_reason") or values.get("reason")
        what = "of [clusters] against" if reason == DropReason.AGAINST else "kept in its place"
        beside[values["keeper"]] = f"{what} (similarity {values['similarity']:.3f}{scope})"
    return beside


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
            tags = _tags(values["tags"][position])
            said = f"--- {values['ids'][position]}: {length} tokens{' tagged ' if tags else ''}{tags}"
            yield Text(printable(said), "bold blue")
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


def _tags(tags: list[str]) -> str:
    return ", ".join(map(repr, tags))  # with marks, for a tag may hold a comma


def _repairs(repairs: list[str]) -> str:
    """Return what policies changed, e.g. ["trailing:1"], in words."""
    parts = [(name, n) for name, _, n in (repair.partition(":") for repair in repairs)]
    return "; ".join(f"{n} {explain(f'repaired/{name}')}" for name, n in parts)


_SAID: Final[dict[str, Callable[[Any], str]]] = {
    "tags": _tags,
    "repairs": _repairs,
    "offset": lambda offset: f"byte {offset:,}",
    "line": lambda line: f"{line:,}",
}
"""Columns that are not shown as they stand."""


def _short(value: Any) -> str:
    shown = str(_plain(value))
    return shown if len(shown) <= 300 else f"{shown[:300]}... ({len(value):,} in all)"


def _plain(value: Any) -> Any:
    """Return a value with its bytes, however deep they lie, as hexadecimal text."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value.hex() if isinstance(value, bytes) else value
