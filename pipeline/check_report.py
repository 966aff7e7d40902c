"""What `chatloom check` says, to people and to programs."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from pipeline.check import Checked, Found, LeftOut, check, write_rest
from pipeline.excerpt import fitted, printable
from pipeline.page import Page
from pipeline.records import check_output
from schemas.settings import ConfigError

MAX_SHOWN: Final = 50
MAX_LISTED: Final = 100_000
"""Pairs of a field that --json lists; beyond, they are only counted."""
_MAX_BROKEN: Final = 5
_WIDTH: Final = 160  # of a line that no terminal limits


def report(inputs: Sequence[str], *, fields: Sequence[str], threshold: float, as_json: bool, output: str | None) -> int:
    """Check the files, print what was found, write what is left to `output`; return the exit code, 0 whatever was found.

    Raises ConfigError for switches that make no sense.
    """
    if output is not None:
        check_output(output, inputs)
    checked = check(inputs, fields=fields, threshold=threshold)
    if output is not None and not fields and len(checked.found) > 1:
        raise ConfigError(
            "--output needs --field: a record goes if it has a near-duplicate in any of the fields that are checked, and "
            f"these are {', '.join(found.name for found in checked.found)}. Name the one that counts, e.g. --field "
            f"{checked.found[-1].name}"
        )
    gone = None if output is None else write_rest(inputs, output, checked)
    if as_json:
        print(json.dumps(to_json(checked, gone), ensure_ascii=False, indent=2))  # noqa: T201 - this is the output
        return 0
    console = Page(highlight=False, markup=False, soft_wrap=True)
    for line in to_text(checked, width=console.width if console.is_terminal else _WIDTH):
        console.print(line)
    if gone is not None:
        n_kept = len(checked.ids) - len(checked.broken) - len(gone)
        console.print(f"\n{output}: {n_kept:,} records; {len(gone):,} left out, each like one that stays")
    return 0


def to_json(checked: Checked, gone: Sequence[LeftOut] | None = None) -> dict[str, Any]:
    """Return the report for programs; at most MAX_LISTED pairs of a field are listed, and all are counted."""
    ids = checked.ids
    value: dict[str, Any] = {
        "threshold": checked.threshold,
        "records": len(ids) - len(checked.broken),
        "broken": [{"row": row, "id": ids[row], "problem": problem} for row, problem in checked.broken],
        "fields": {found.name: _field(found, checked) for found in checked.found},
    }
    if gone is not None:
        value["left_out"] = [
            {
                "row": one.row,
                "id": ids[one.row],
                "keeper_row": one.keeper,
                "keeper_id": ids[one.keeper],
                "field": one.field,
                "similarity": one.similarity,
            }
            for one in gone
        ]
    return value


def _field(found: Found, checked: Checked) -> dict[str, Any]:
    values = found.values
    return {
        "texts": len(values.texts),
        "compared": found.n_compared(),
        "empty": values.n_empty,
        "not_text": values.n_other,
        "missing": _missing(found, checked),
        "n_pairs": found.n_pairs(),
        "n_second_rows": found.n_second_rows(),
        "pairs": [
            {
                "row_a": pair.row_a,
                "row_b": pair.row_b,
                "similarity": pair.similarity,
                "id_a": checked.ids[pair.row_a],
                "id_b": checked.ids[pair.row_b],
            }
            for pair in islice(found.pairs(), MAX_LISTED)
        ],
    }


def _missing(found: Found, checked: Checked) -> int:
    values = found.values
    return len(checked.ids) - len(checked.broken) - len(values.texts) - values.n_empty - values.n_other


def to_text(checked: Checked, *, width: int) -> Iterator[Text]:
    """Yield the lines of the report for people, at most `width` cells of texts each."""
    n_records = len(checked.ids) - len(checked.broken)
    yield Text(f"{n_records:,} records; pairs of texts whose cosine is greater than {checked.threshold:g}")
    for row, problem in checked.broken[:_MAX_BROKEN]:
        yield Text(printable(f"skipped {checked.ids[row]}: {problem}"), "yellow")
    if len(checked.broken) > _MAX_BROKEN:
        yield Text(f"skipped {len(checked.broken) - _MAX_BROKEN:,} more records that cannot be read", "yellow")
    for found in checked.found:
        yield Text(f"\n{printable(found.name)}: {_summary(found, checked)}", "bold")
        n_pairs = found.n_pairs()
        if n_pairs:
            yield from _lines(found, checked, width)
        if n_pairs > MAX_SHOWN:
            listed = "them" if n_pairs <= MAX_LISTED else f"the first {MAX_LISTED:,}"
            yield Text(f"and {n_pairs - MAX_SHOWN:,} more pairs; --json lists {listed}")
    if checked.inside:
        yield Text(
            printable(f"\ntexts inside are not compared unless --field names them: {', '.join(checked.inside)}"),
            "yellow",
        )


def _summary(found: Found, checked: Checked) -> str:
    values, n_pairs = found.values, found.n_pairs()
    absent = {
        "empty": values.n_empty,
        "missing": _missing(found, checked),
        "not text": values.n_other,
        "too short": len(values.texts) - found.n_compared(),
    }
    aside = "".join(f", {n:,} {what}" for what, n in absent.items() if n)
    n_second = found.n_second_rows()
    pairs = f"{n_pairs:,} pair{'s' * (n_pairs != 1)}" if n_pairs else "no near-duplicates"
    pairs += f" with {n_second:,} different second rows" if n_second < n_pairs else ""
    return f"{pairs} ({found.n_compared():,} texts compared{aside})"


def _lines(found: Found, checked: Checked, width: int) -> Iterator[Text]:
    """Yield two lines a pair: its numbers, and both records with the beginnings of their texts, one below the other."""
    shown = list(islice(found.pairs(), MAX_SHOWN))
    rows = {row for pair in shown for row in (pair.row_a, pair.row_b)}
    texts = {row: text for row, text in zip(found.values.rows, found.values.texts, strict=True) if row in rows}
    names = {row: printable(checked.ids[row]) for row in rows}
    name_width = max(map(cell_len, names.values()))
    yield Text(f"{'row a':>9}{'row b':>9}{'similarity':>12}  {set_cell_size('record', name_width)}  text", "dim")
    for pair in shown:
        numbers = f"{pair.row_a:>9}{pair.row_b:>9}{pair.similarity:>12.3f}"
        for row, before in ((pair.row_a, numbers), (pair.row_b, " " * len(numbers))):
            words = " ".join(texts[row][: 4 * width].split())
            yield Text(fitted(f"{before}  {set_cell_size(names[row], name_width)}  {words}", width))


__all__ = ["report", "to_json", "to_text"]
