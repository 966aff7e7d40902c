"""Near-duplicates in a small file, field by field: what is compared, what is found, and what stays."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

from pipeline.kernel_cache import use_kernel_cache
from pipeline.records import at, joined, read_records, text_paths
from schemas.files import write_whole
from schemas.settings import ConfigError, suggest
from stages.cosine import MAX_TEXTS, TooLargeError, near_texts

_MAX_INSIDE: Final = 4


class Values(msgspec.Struct):
    """The texts of one field, and what else stood there."""

    rows: list[int] = msgspec.field(default_factory=list)
    texts: list[str] = msgspec.field(default_factory=list)
    """None of them empty."""
    n_empty: int = 0
    """Empty text or null."""
    n_other: int = 0
    """Neither text nor null: such a record is left alone in this field."""
    is_text: bool = False
    """Some record has text here, be it empty."""

    def add(self, row: int, is_there: bool, value: Any) -> None:
        """Take in what a record has under the field."""
        if isinstance(value, str):
            self.is_text = True
        if isinstance(value, str) and value:
            self.rows.append(row)
            self.texts.append(value)
        elif value is None or value == "":
            self.n_empty += is_there
        else:
            self.n_other += 1


class Pair(NamedTuple):
    """Two rows whose texts are alike; row_a < row_b."""

    row_a: int
    row_b: int
    similarity: float


class Found(msgspec.Struct, frozen=True):
    """What was found in one field."""

    name: str
    values: Values
    members: list[list[int]]
    """Of each different text: the rows that hold it, in order."""
    neighbours: list[list[tuple[int, float]]]
    """Of each different text: the others that are alike, and how much."""

    def n_compared(self) -> int:
        """Return the number of rows that were compared."""
        return sum(map(len, self.members))

    def n_pairs(self) -> int:
        """Return the number of pairs of rows."""
        within = sum(len(rows) * (len(rows) - 1) for rows in self.members)
        across = sum(
            len(self.members[text]) * len(self.members[other])
            for text, others in enumerate(self.neighbours)
            for other, _ in others
        )
        return (within + across) // 2

    def n_second_rows(self) -> int:
        """Return the number of different rows that are the second of a pair."""
        n_rows = 0
        for rows, others in zip(self.members, self.neighbours, strict=True):
            first = min([rows[0], *(self.members[other][0] for other, _ in others)])
            n_rows += len(rows) - bisect_right(rows, first)
        return n_rows

    def pairs(self) -> Iterator[Pair]:
        """Yield the pairs in order of their rows."""
        text_of = sorted((row, text) for text, rows in enumerate(self.members) for row in rows)
        for row, text in text_of:
            partners = [Pair(row, other, 1.0) for other in self.members[text] if other > row]
            for neighbour, similarity in self.neighbours[text]:
                partners += [Pair(row, other, similarity) for other in self.members[neighbour] if other > row]
            yield from sorted(partners)


class Checked(msgspec.Struct, frozen=True):
    """A whole report."""

    threshold: float
    ids: list[str]
    """Of every row, also of those that cannot be read."""
    broken: list[tuple[int, str]]
    """Rows that cannot be read, and why."""
    found: list[Found]
    inside: list[str] = []
    """Texts of the first record that lie deeper and are not compared, for no field was named; no more than are shown."""


class LeftOut(NamedTuple):
    """A row that is not in the output, and why."""

    row: int
    keeper: int
    field: str
    similarity: float


def check(inputs: Sequence[str], *, fields: Sequence[str] = (), threshold: float = 0.9) -> Checked:
    """Compare the texts of each field of the records in `inputs`; without `fields`, of every field that holds text.

    Raises ConfigError for a threshold or a field that makes no sense, TooLargeError for more than can be compared.
    """
    if not 0.1 <= threshold < 1:
        raise ConfigError(
            f"--threshold {threshold:g}: expected 0.1 to less than 1. Pairs *above* the threshold are reported: 0.9999 finds "
            "texts that are all but the same"
        )
    use_kernel_cache()
    ids: list[str] = []
    broken: list[tuple[int, str]] = []
    columns: dict[str, Values] = {name: Values() for name in fields}
    sample: Any = None
    for record in read_records(inputs):
        if record.row == MAX_TEXTS:
            raise _too_large(inputs, f"more than {MAX_TEXTS:,} records")
        ids.append(record.id)
        if record.problem is not None:
            broken.append((record.row, record.problem))
            continue
        sample = record.value if sample is None else sample
        for name in fields or (record.value if isinstance(record.value, dict) else ()):
            if name not in columns:
                columns[name] = Values()
            columns[name].add(record.row, *at(record.value, name))
    columns = {name: values for name, values in columns.items() if values.is_text}
    _require_texts(inputs, fields, columns, sample)
    found = []
    for name, values in columns.items():
        try:
            found.append(_compare(name, values, threshold))
        except TooLargeError as error:
            raise _too_large(inputs, f"field {name!r}: {error}") from None
    inside = (
        (path for path in text_paths(sample) if path not in sample) if isinstance(sample, dict) and not fields else ()
    )
    return Checked(threshold, ids, broken, found, list(islice(inside, _MAX_INSIDE)))


def _too_large(inputs: Sequence[str], what: str) -> TooLargeError:
    return TooLargeError(
        f"{' '.join(inputs)}: {what}. `check` is for small files; `chatloom data CONFIG --input {inputs[0]}` finds "
        "near-duplicates in files of any size. Otherwise check a part of it, another --field, or a higher --threshold"
    )


def _require_texts(inputs: Sequence[str], fields: Sequence[str], columns: dict[str, Values], sample: Any) -> None:
    """Raise ConfigError unless there is text to compare in every field that was named, or in any."""
    where = " ".join(inputs)
    known = list(islice(dict.fromkeys(text_paths(sample)), 12))
    if sample is None:
        raise ConfigError(f"{where}: no record can be read; expected JSON objects, one a line or in one array")
    for name in fields:
        if name not in columns:
            raise ConfigError(f"{where}: no record has text under --field {name}. {suggest(name, known)}")
    if not columns:
        raise ConfigError(
            f"{where}: no record has a text at its top level. Name a field with --field, e.g. "
            + (", ".join(known) or "messages[0].content")
        )


def _compare(name: str, values: Values, threshold: float) -> Found:
    groups, pairs = near_texts(pl.Series(values.texts, dtype=pl.String), threshold=threshold)
    members: list[list[int]] = []
    for row, text in zip(values.rows, groups, strict=True):
        if text == len(members):  # numbered in order of appearance
            members.append([])
        if text is not None:
            members[text].append(row)
    neighbours: list[list[tuple[int, float]]] = [[] for _ in members]
    for a, b, similarity in pairs.iter_rows():
        neighbours[a].append((b, similarity))
        neighbours[b].append((a, similarity))
    return Found(name, values, members, neighbours)


def left_out(checked: Checked) -> list[LeftOut]:
    """Return the rows that go if no pair is to remain: each is the second of a pair whose first stays.

    Rows are decided in order. A row whose only partners go themselves stays, so nothing is lost that has no like among
    what is left.
    """
    text_of = [{row: text for text, rows in enumerate(f.members) for row in rows} for f in checked.found]
    blocked: list[dict[int, tuple[int, float]]] = [{} for _ in checked.found]  # of each text: who stays, how alike
    out = []
    unreadable = {row for row, _ in checked.broken}
    for row in range(len(checked.ids)):
        if row in unreadable:
            continue
        texts = [(i, of[row]) for i, of in enumerate(text_of) if row in of]
        why = next(((i, text) for i, text in texts if text in blocked[i]), None)
        if why is not None:
            i, text = why
            keeper, similarity = blocked[i][text]
            out.append(LeftOut(row, keeper, checked.found[i].name, similarity))
            continue
        for i, text in texts:
            blocked[i][text] = (row, 1.0)
            for other, similarity in checked.found[i].neighbours[text]:
                blocked[i].setdefault(other, (row, similarity))
    return out


def write_rest(inputs: Sequence[str], output: str, checked: Checked) -> list[LeftOut]:
    """Write the records without the second of each pair to `output`, byte for byte; return what was left out.

    Records that cannot be read are not written.
    """
    out = left_out(checked)
    absent = {row.row for row in out} | {row for row, _ in checked.broken}
    raws = [record.raw for record in read_records(inputs) if record.row not in absent]
    write_whole(Path(output), joined(raws, output))
    return out


__all__ = ["Checked", "Found", "LeftOut", "Pair", "Values", "check", "left_out", "write_rest"]
