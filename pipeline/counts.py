"""What the stages counted, as tables and sentences for a person; read from manifests alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from pipeline.excerpt import visible
from pipeline.fates import SourceLoss, counted, percent, source_losses
from pipeline.sources import FileFate, file_fates, together
from schemas.manifest import Manifest

ANY: Final = "*"
_TEXTS: Final = {
    "repaired/end_texts": "end text(s) cut off ([ingest] end_texts)",
    "repaired/trailing": "trailing turn(s) that nothing answers, left out ([ingest] trailing)",
    "repaired/first_assistant": "message(s) with which the assistant began, left out ([ingest] first_assistant)",
    "repaired/same_role": "message(s) joined to the one before, which is of the same role ([ingest] same_role)",
    "repaired/empty": "empty message(s) left out ([ingest] empty)",
    "repaired/other_answers": "further answer(s) to a question, left out: the first is kept",
    "turns/trained": "trained turn(s) of the assistant",
    "turns/stopped": "trained turn(s) that end on a trained stop",
    "turns/masked_without_stop": "turn(s) without a trained stop, left untrained ([mask] without_stop)",
    "turns/masked_empty": "turn(s) that say nothing but their stop, left untrained",
    "notes/*": "time(s) that the template left something out (column notes): {0}",
    "scoped/*": "match(es) of [[render.scoped]] rule {0}",
    "texts/*": "text(s) to compare in scope {0}",
    "scope/*": "row(s) removed as duplicates in scope {0}",
    "rows/proven": "row(s) whose tokens spell the text byte for byte",
    "rows/by_offsets": "row(s) whose tokens are placed by the offsets of `tokenizers`",
    "rows/guarded": "row(s) that spell a control token, encoded as the text it is",
    "straddling": "token(s) that begin in one span and end in another",
    "straddling/turn_start": "turn(s) whose first character belongs to a token that began before ([tokenize] straddling)",
    "mismatched_shards": "shard(s) encoded by `tokenizers`, because gigatoken gave other ids",
    "shards_without_gigatoken": "shard(s) encoded by `tokenizers`, many times slower: gigatoken does not know this tokenizer",
    "too_long": "conversation(s) longer than max_seq_len ([tokenize] too_long)",
    "cut/turns": "turn(s) left out of conversations that are too long",
    "cut/tokens": "token(s) left out of conversations that are too long",
    "cut/answers": "answer(s) of which only the beginning is kept, without a stop ([tokenize] cut_answers)",
}
"""What a count means, by its name; {0} stands for what "*" matches."""
_WORRYING: Final = (
    "repaired/*",
    "turns/masked_without_stop",
    "turns/masked_empty",
    "notes/*",
    "straddling/turn_start",
    "mismatched_shards",
    "shards_without_gigatoken",
    "cut/turns",
    "cut/answers",
)
"""Counts that a build mentions at its end."""
_IN_TABLES: Final = ("tokens", "trained", "what_if")
_IN_WORDS: Final = {
    "ingest": ("records", "shape"),
    "clusters": ("rows", "lost", "similarity", "contaminated", "split", "reason"),
    "pack": ("tagged",),
}
"""Counts of a stage that stand in a table of their own, in sentences, or in the funnel."""
MOST_SOURCES: Final = 15
"""Sources, and tags, that a table names."""
_AFTER: Final = {"ingest": "after ingest", "dedup": "after dedup", "pack": "packed"}
"""Stages whose conversations the table of files has."""


class Section(NamedTuple):
    """A table: its first `n_names` columns are words, the others numbers."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    n_names: int


def sections(manifests: Mapping[str, Manifest]) -> Iterator[Section]:
    """Yield the tables of files, shapes and tags, of what was trained, of what was lost and would be, and of the rest."""
    counts = {name: manifest.totals.counts for name, manifest in manifests.items()}
    if len(fates := file_fates(manifests)) > 1:
        stages = [stage for stage in _AFTER if stage in manifests]
        headings = ("file", "in", *(_AFTER[stage] for stage in stages), "tokens", "trained", "lost")
        yield Section("what became of each file", headings, _files(fates, stages), 1)
    if shapes := counted("shape", counts.get("ingest", {})):
        rows = sorted(shapes.items(), key=lambda item: (-item[1], item[0]))
        yield Section("shapes in which records were read", ("shape", "rows"), [(name, f"{n:,}") for name, n in rows], 1)
    if tagged := _tagged(counts.get("pack", {})):
        headings = ("tag", "conversations", "tokens", "trained", "share of all trained")
        yield Section("packed under each tag", headings, _tags(tagged, manifests["pack"].totals.supervised), 1)
    if trained := _trained(_merged(counts)):
        yield Section("tokens by who wrote them", ("role", "class", "tokens", "trained", "share"), trained, 2)
    if lost := _what_if(_merged(counts)):
        title = "what each [tokenize] too_long would lose"
        yield Section(title, ("policy", "conversations", "turns", "tokens", "answers cut")[: len(lost[0])], lost, 1)
    clusters = counts.get("clusters", {})
    if losses := source_losses(clusters):
        yield Section("lost to duplicates by source", ("source", "rows", "lost", "share"), _losses(losses), 1)
    if similar := _similar(clusters):
        yield Section("removed rows by similarity with their keeper", ("similarity", "rows"), similar, 1)
    others = [
        (stage, visible(explain(name)), f"{n:,}")
        for stage, of_stage in counts.items()
        for name, n in of_stage.items()
        if name.partition("/")[0] not in (*_IN_TABLES, *_IN_WORDS.get(stage, ())) and (n or name.startswith("scoped/"))
    ]
    if others:
        yield Section("also counted", ("stage", "what", "n"), others, 2)


def sentence(manifests: Mapping[str, Manifest]) -> str | None:
    """Return how much is trained, in one line; None if the mask has counted nothing."""
    mask = manifests.get("mask")
    if mask is None or not mask.totals.counts:
        return None
    totals, counts = mask.totals, mask.totals.counts
    n_turns, n_stopped = counts.get("turns/trained", 0), counts.get("turns/stopped", 0)
    if not totals.tokens:
        return None
    by_role: dict[str, int] = {}
    for name, n in counts.items():
        kind, _, place = name.partition("/")
        if kind == "trained":
            role = place.partition("/")[0]
            by_role[role] = by_role.get(role, 0) + n
    shares = [
        f"{percent(n, totals.supervised)} {_who(role)}"
        for role, n in sorted(by_role.items(), key=lambda item: -item[1])
    ]
    stops = f"; {percent(n_stopped, n_turns)} of {n_turns:,} trained turns end on a trained stop" if n_turns else ""
    return f"trained: {percent(totals.supervised, totals.tokens)} of tokens ({', '.join(shares)}){stops}"


def records_sentence(manifests: Mapping[str, Manifest]) -> str | None:
    """Return how many records the conversations are of, in one line; None where each record is one conversation."""
    ingest = manifests.get("ingest")
    n_records = ingest.totals.counts.get("records", 0) if ingest else 0
    if ingest is None or n_records in (0, ingest.totals.rows_in):
        return None
    return f"{ingest.totals.rows_in:,} conversations of {n_records:,} records, for some records hold several"


def remarks(manifests: Mapping[str, Manifest]) -> Iterator[str]:
    """Yield a sentence for each count that deserves a look, and for each rule that matched nothing."""
    for stage, manifest in manifests.items():
        for name, n in manifest.totals.counts.items():
            if n and any(_match(pattern, name) is not None for pattern in _WORRYING):
                yield f"note: {stage}: {n:,} {visible(explain(name))}"
            elif not n and _match("scoped/*", name) is not None:
                yield f"note: {stage}: no {explain(name)}; has its pattern, role or class a mistake?"


def explain(name: str) -> str:
    """Return what a count means, in words; the name itself, made readable, where nobody has explained it."""
    for pattern, text in _TEXTS.items():
        rest = _match(pattern, name)
        if rest is not None:
            # rules are counted from 0, but people count them from 1
            return text.format(int(rest) + 1 if pattern == "scoped/*" and rest.isdecimal() else rest)
    return name.replace("/", ": ").replace("_", " ")


def _match(pattern: str, name: str) -> str | None:
    """Return what stands for the pattern's "*", nothing if it has none, and None where the name is another."""
    if pattern.endswith(ANY):
        return name.removeprefix(pattern[:-1]) if name.startswith(pattern[:-1]) else None
    return "" if pattern == name else None


def _merged(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {name: n for stage, of_stage in counts.items() if stage != "clusters" for name, n in of_stage.items()}


def _losses(losses: Sequence[SourceLoss]) -> list[tuple[str, ...]]:
    shown = list(losses[:MOST_SOURCES])
    if others := losses[MOST_SOURCES:]:
        n_rows, n_lost = sum(loss.rows for loss in others), sum(loss.lost for loss in others)
        shown.append(SourceLoss(f"{len(others):,} others", n_rows, n_lost))
    return [
        (
            visible(loss.source),
            f"{loss.rows:,}",
            f"{loss.lost:,}" if loss.lost else "-",
            percent(loss.lost, loss.rows) if loss.lost else "-",
        )
        for loss in shown
    ]


def _files(fates: Sequence[FileFate], stages: Sequence[str]) -> list[tuple[str, ...]]:
    shown = list(fates[:MOST_SOURCES])
    if others := fates[MOST_SOURCES:]:
        shown.append(together(others, f"{len(others):,} others"))
    return [
        (
            visible(fate.path),
            f"{fate.n_in:,}",
            *(f"{fate.kept.get(stage, 0):,}" for stage in stages),
            f"{fate.tokens:,}" if fate.tokens else "-",
            percent(fate.trained, fate.tokens) if fate.trained else "-",
            percent(fate.lost, fate.asked) if fate.lost else "-",
        )
        for fate in shown
    ]


def _tagged(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return what is packed under each tag, in all splits: {tag: {measure: n}}, what is trained most first."""
    found: dict[str, dict[str, int]] = {}
    for name, n in counted("tagged", counts).items():
        _, measure, tag = name.split("/", 2)
        of_tag = found.setdefault(tag, {})
        of_tag[measure] = of_tag.get(measure, 0) + n
    return dict(sorted(found.items(), key=lambda item: (-item[1].get("trained", 0), item[0])))


def _tags(tagged: Mapping[str, Mapping[str, int]], n_trained: int) -> list[tuple[str, ...]]:
    measures = ("conversations", "tokens", "trained")
    rows = [
        (
            "* (each rare in its shard)" if tag == ANY else visible(tag),
            *(f"{found.get(measure, 0):,}" for measure in measures),
            percent(found.get("trained", 0), n_trained) if n_trained else "-",
        )
        for tag, found in tagged.items()
    ]
    if len(rows) > MOST_SOURCES:  # not summed: a conversation may have several of them
        rows[MOST_SOURCES:] = [(f"{len(rows) - MOST_SOURCES:,} others", "", "", "", "")]
    return rows


def _similar(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    bands = sorted(((float(low), n) for low, n in counted("similarity", counts).items() if n), reverse=True)
    return [("1.00" if low == 1 else f"{low:.2f} to {low + 0.05:.2f}", f"{n:,}") for low, n in bands]


def _trained(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    rows: list[tuple[int, int, str, str]] = []
    for name, n in counts.items():
        kind, *place = name.split("/")
        if kind == "tokens" and len(place) == 2:
            rows.append((counts.get("/".join(("trained", *place)), 0), n, place[0], place[1]))
    rows.sort(key=lambda row: (-row[0], -row[1], row[2:]))
    if rows:
        rows.append((sum(row[0] for row in rows), sum(row[1] for row in rows), "all", ""))
    return [(role, name, f"{n:,}", f"{k:,}" if k else "-", percent(k, n) if k else "-") for k, n, role, name in rows]


def _what_if(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    policies: dict[str, dict[str, int]] = {}
    for name, n in counts.items():
        kind, *place = name.split("/")
        if kind == "what_if" and len(place) == 2:
            policies.setdefault(place[0], {})[place[1]] = n
    ordered = sorted(policies.items(), key=lambda item: (-item[1].get("tokens", 0), item[0]))
    names = ["conversations", "turns", "tokens"]
    if any("answers" in lost for lost in policies.values()):  # only where answers may be cut
        names.append("answers")
    return [(policy, *(f"{lost.get(name, 0):,}" for name in names)) for policy, lost in ordered]


def _who(role: str) -> str:
    return "the template's" if role == "-" else role
