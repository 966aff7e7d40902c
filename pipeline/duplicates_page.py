"""What `chatloom duplicates` prints: facts of pipeline.duplicates, laid out for a person or as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from rich.table import Table
from rich.text import Text

from pipeline.counts import MOST_SOURCES
from pipeline.duplicates import FILES, Cluster, Overlaps, Pair, Survey, Words, survey
from pipeline.excerpt import EXCERPT, fitted, one_line, printable, words_around
from pipeline.fates import FEW_ROWS, percent
from pipeline.page import Page
from pipeline.side_by_side import Piece, side_by_side
from pipeline.story import MEMBERS, Story, story
from schemas.reasons import EXPLANATIONS, DropReason

WIDTH: Final = 120
"""Cells of a line where there is no terminal to ask."""
_DIFFERS: Final = "bold black on yellow"
_OPEN, _CLOSE = "⟦", "⟧"
Texts: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]
"""(role, text) of messages, by the id of their conversation."""


def duplicates_page(run: Path, *, id: str | None, top: int, as_json: bool) -> None:  # noqa: A002 - the switch's name
    """Print what deduplication did to a run, or to one row of it. Raises ConfigError when there is no such run or row."""
    facts = survey(run, top=top) if id is None else story(run, id)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode())  # noqa: T201 - this is the output
        return
    console = Page(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    parts = _survey(run, facts, console.width) if isinstance(facts, Survey) else _story(run, facts, console.is_terminal)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def _survey(run: Path, facts: Survey, width: int) -> Iterator[Text | Table]:
    n_removed = sum(facts.removed.values())
    why = f": {_listed(facts.removed)}" if n_removed else ""
    yield Text(f"{run}: {n_removed:,} of {facts.rows:,} rows removed ({percent(n_removed, facts.rows)}){why}")
    yield Text(f"{facts.n_keepers:,} kept rows have duplicates")
    if facts.clusters:
        yield Text("\nlargest clusters, each with its removed row that is least like the row kept in its place", "bold")
        for cluster in facts.clusters:
            yield from _cluster(cluster, width)
    if facts.sources:
        few = (
            f", those of fewer than {FEW_ROWS} rows last"
            if facts.sources[-1].rows < FEW_ROWS < facts.sources[0].rows
            else ""
        )
        yield Text(f"\nlost to duplicates by source, the worst first{few}", "bold")
        yield _sources(facts)
    if facts.evaluations:
        yield Text("\nrows that contain evaluation records, those that contain least of one first", "bold")
        yield from _overlaps(facts.evaluations, "contain", width)
        yield Text(_advice(facts), "bold yellow")
    if facts.against:
        yield Text("\nrows similar to those of [clusters] against, the least similar first", "bold")
        yield from _overlaps(facts.against, "are similar to", width)
    if facts.splits:
        kept = sum(facts.splits.values())
        yield Text(f"\nsplits: {', '.join(f'{name} {n:,} ({percent(n, kept)})' for name, n in facts.splits.items())}")
    if n_removed:
        yield Text(f"\none row word by word: chatloom duplicates {run} --id ID", "dim")


def _cluster(cluster: Cluster, width: int) -> Iterator[Text]:
    said = [f"{cluster.n_duplicates:,} rows"]
    if cluster.lowest is not None and cluster.highest is not None:
        said.append(f"similarity {_range(cluster.lowest, cluster.highest)} ({', '.join(cluster.scopes)})")
    if not cluster.stays:
        said.append("none stays")
    sources = list(cluster.sources.items())
    others = f", {sum(n for _, n in sources[3:]):,} from {len(sources) - 3:,} others" if sources[3:] else ""
    yield Text(printable(f"{', '.join(said)}: {', '.join(f'{name} {n:,}' for name, n in sources[:3])}{others}"), "cyan")
    if cluster.least is not None:
        names = (_keeper(cluster.least.reason, stays=cluster.stays), "removed")
        yield from _pair(cluster.least, names, f"{cluster.least.share:.3f}", width)


def _keeper(reason: str | None, *, stays: bool) -> str:
    if reason == DropReason.AGAINST:
        return "against"
    return "kept" if stays else "removed"


def _pair(pair: Pair, names: tuple[str, str], share: str, width: int) -> Iterator[Text]:
    column = max(map(len, names)) + 2
    for i, (name, one) in enumerate(zip(names, (pair.other, pair.row), strict=True)):
        note = f"  {share}" if i else ""
        yield Text.assemble(f"  {name:<{column}}", printable(one.id), (note, "bold"))
        yield Text(f"  {'':<{column}}{_words(one, width - column - 2)}", "dim" if one.text is None else "")


def _words(words: Words, width: int) -> str:
    return "(its text is not at hand)" if words.text is None else fitted(words.text, width)


def _sources(facts: Survey) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    for _ in range(3):
        table.add_column(justify="right")
    for loss in facts.sources[:MOST_SOURCES]:
        table.add_row(
            Text(printable(loss.source)), f"{loss.lost:,}", f"of {loss.rows:,} rows", percent(loss.lost, loss.rows)
        )
    if others := facts.sources[MOST_SOURCES:]:
        lost, rows = sum(loss.lost for loss in others), sum(loss.rows for loss in others)
        table.add_row(f"{len(others):,} others", f"{lost:,}", f"of {rows:,} rows", percent(lost, rows))
    return table


def _overlaps(found: list[Overlaps], verb: str, width: int) -> Iterator[Text]:
    for one in found[:FILES]:
        stay = f"; {one.kept:,} of the rows stay" if verb == "contain" else ""
        yield Text(printable(f"{one.rows:,} row(s) {verb} {one.records:,} record(s) of {one.file}{stay}"), "cyan")
        for pair in one.examples:
            note = f"contains {pair.share:.3f} of it" if verb == "contain" else f"similarity {pair.share:.3f}"
            if verb == "contain" and pair.reason:
                note += f", dropped: {pair.reason}"
            yield from _pair(pair, ("record", "row"), note, width)
    if rest := found[FILES:]:
        yield Text(f"{sum(one.rows for one in rest):,} row(s) with records of {len(rest):,} other files")


def _advice(facts: Survey) -> str:
    if not any(one.kept for one in facts.evaluations):
        return "none of these rows stays"
    return (
        'these rows stay: look whether even the first contain the record, then set [clusters] contaminated = "drop" to drop them '
        "(or raise [clusters] overlap, the share from which on a row counts)"
    )


def _story(run: Path, facts: Story, in_colour: bool) -> Iterator[Text | Table]:
    row = facts.row
    yield Text(printable(row.id), "bold")
    if row.reason:
        reason = DropReason(row.reason)
        yield Text.assemble(("dropped: ", "bold red"), (reason.value, "bold red"), f": {EXPLANATIONS[reason]}")
    else:
        yield Text(f"kept, in {row.split}")
    if row.keeper:
        name = "similar to" if row.reason == DropReason.AGAINST else "keeper"
        yield Text(printable(f"{name}: {row.keeper}{_how(row.similarity, row.scope)}"))
    yield Text(f"cluster: {facts.cluster}, {facts.n_duplicates:,} row(s)")
    for member in facts.members[:MEMBERS]:
        fate = member.reason or f"kept, in {member.split}"
        yield Text(printable(f"  {member.id}  {fate}{_how(member.similarity, member.scope)}"))
    others = facts.n_duplicates - 1 - min(len(facts.members), MEMBERS)
    if others > 0 and facts.members:
        yield Text(f"  and {others:,} more")
    if facts.beside is not None and facts.beside.keeper:
        removed, keeper = facts.beside.id, facts.beside.keeper
        yield Text(f"\n{_compared(facts)}; what differs is {_marks(in_colour)}", "bold")
        name = _keeper(facts.beside.reason, stays=facts.keeper_stays)
        yield _beside(facts.texts, ("removed", removed), (name, keeper), in_colour)
    if facts.evaluation is not None and facts.overlap is not None:
        yield Text(
            printable(f"\nit contains {facts.overlap:.3f} of the evaluation record {facts.evaluation}"), "bold yellow"
        )
        around = _around(facts.record_texts, row.id, facts.evaluation)
        yield _beside(around, ("row", row.id), ("record", facts.evaluation), in_colour)
    yield Text(f"\nwhole: chatloom look {run} length --id {row.id!r}", "dim")


def _how(similarity: float | None, scope: str | None) -> str:
    return "" if similarity is None else f"  similarity {similarity:.3f}{f' ({scope})' if scope else ''}"


def _compared(facts: Story) -> str:
    assert facts.beside is not None
    what = {"prompt": "first user messages", "answer": "last answers"}.get(facts.beside.scope or "", "conversations")
    if facts.beside.id == facts.row.id:
        whose = "that of [clusters] against" if facts.row.reason == DropReason.AGAINST else "its keeper's"
        return f"the {what}, this row's and {whose}"
    return f"the {what} of this row and of the one least like it that was removed for it"


def _marks(in_colour: bool) -> str:
    return "in colour" if in_colour else f"between {_OPEN} and {_CLOSE}"


def _around(texts: Texts, row: str, record: str) -> Texts:
    """Return the two texts on a line each, the row's from where it begins to say what the record says."""
    if row not in texts or record not in texts:
        return texts
    said = {id_: one_line(" ".join(text for _, text in texts[id_])) for id_ in (row, record)}
    limit = 2 * len(said[record]) + EXCERPT
    return {row: [("", words_around(said[row], said[record], limit))], record: [("", said[record])]}


def _beside(texts: Texts, left: tuple[str, str], right: tuple[str, str], in_colour: bool) -> Text | Table:
    if missing := [id_ for _, id_ in (left, right) if id_ not in texts]:
        return Text(printable(f"the text of {' and of '.join(missing)} is not at hand"), "dim")
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for name, id_ in (left, right):
        table.add_column(Text(printable(f"{name}: {id_}")), ratio=1, overflow="fold")
    for turn in side_by_side(texts[left[1]], texts[right[1]]):
        table.add_row(_marked(turn.left, in_colour), _marked(turn.right, in_colour))
    return table


def _marked(pieces: tuple[Piece, ...], in_colour: bool) -> Text:
    out = Text()
    for text, differs in pieces:
        shown = printable(text) if out.plain else printable(text).lstrip("\n")
        if not differs:
            out.append(shown)
        elif in_colour:
            out.append(shown, _DIFFERS)
        else:
            word = shown.rstrip()
            out.append(f"{_OPEN}{word}{_CLOSE}{shown[len(word) :]}")
    return out


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _range(lowest: float, highest: float) -> str:
    return f"{lowest:.3f}" if lowest == highest else f"{lowest:.3f} to {highest:.3f}"
