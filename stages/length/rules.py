"""Each rule of curation as what it finds: rows, the reason that they go, and what was found where."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.reasons import DropReason
from stages.length.said import EVERYBODY, Said
from stages.length.scripts import classes
from stages.length.settings import Length, Noise, Pattern, ScriptShare, Side

I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

_SIDES: Final = ("system", "user", "assistant", "tool")
_SHOWN: Final = 60


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a rule says of the rows that it drops."""

    reason: DropReason
    rows: I64
    """Ascending, each once."""
    details: Sequence[str]


def findings(said: Said, config: Length) -> Iterator[Finding]:
    """Yield what each rule finds, in the order in which they decide: the first that a row fails is its reason."""
    yield from _of_conversations(said, config)
    for role in _SIDES:
        yield from _of_side(said, role, getattr(config, role))
    if config.scripts or config.noise:
        wanted = np.zeros(said.n_messages, np.bool_)
        for role in {*(rule.role for rule in config.scripts), *(rule.role for rule in config.noise)}:
            wanted |= said.by(role)
        said.watch(wanted)
    for script in config.scripts:
        yield from _of_script(said, script)
    for noise in config.noise:
        yield from _of_noise(said, noise)
    for pattern in config.patterns:
        yield from _of_pattern(said, pattern)


def _of_conversations(said: Said, config: Length) -> Iterator[Finding]:
    n_chars = said.per_row(said.n_chars)
    low, high = DropReason.TOO_SHORT, DropReason.TOO_LONG
    yield from _bound(n_chars, config.min_chars, config.max_chars, "characters", (low, high))
    if config.min_bytes or config.max_bytes is not None:
        yield from _bound(said.per_row(said.n_bytes), config.min_bytes, config.max_bytes, "bytes", (low, high))
    turns = (DropReason.TOO_FEW_TURNS, DropReason.TOO_MANY_TURNS)
    yield from _bound(said.n_turns, config.min_turns, config.max_turns, "messages of the assistant", turns)


def _bound(
    values: I64, low: int, high: int | None, unit: str, reasons: tuple[DropReason, DropReason]
) -> Iterator[Finding]:
    """Yield the rows whose value is out of bounds."""
    for reason, is_out, limit in _out_of(values, low, high, reasons):
        rows = np.flatnonzero(is_out)
        if len(rows):
            yield Finding(reason=reason, rows=rows, details=[f"{n:,} {unit}, {limit}" for n in values[rows].tolist()])


def _of_side(said: Said, role: str, side: Side) -> Iterator[Finding]:
    if side == Side():
        return
    its = said.by(role)
    reasons = (DropReason.MESSAGE_TOO_SHORT, DropReason.MESSAGE_TOO_LONG)
    for unit, name in (("chars", "characters"), ("bytes", "bytes")):
        low, high = getattr(side, f"min_{unit}"), getattr(side, f"max_{unit}")
        if low or high is not None:
            values = said.n_chars if unit == "chars" else said.n_bytes
            for reason, is_out, limit in _out_of(values, low, high, reasons):
                at = _first(said, is_out & its & said.has_text)
                yield _told(said, at, reason, [f"{n:,} {name}, {limit}" for n in values[at].tolist()])
    if side.min_turns or side.max_turns is not None:
        turns = (DropReason.TOO_FEW_TURNS, DropReason.TOO_MANY_TURNS)
        yield from _bound(said.per_row(its), side.min_turns, side.max_turns, f"messages of role {role}", turns)


def _out_of(
    values: I64, low: int, high: int | None, reasons: tuple[DropReason, DropReason]
) -> Iterator[tuple[DropReason, Bools, str]]:
    if low:
        yield reasons[0], values < low, f"at least {low:,}"
    if high is not None:
        yield reasons[1], values > high, f"at most {high:,}"


def _of_script(said: Said, rule: ScriptShare) -> Iterator[Finding]:
    its = said.by(rule.role) & said.has_text
    n_all = said.per_row(said.n_chars * its)
    n_script = said.per_row(said.counts[:, classes().scripts[rule.script]].sum(axis=1) * its)
    speaks = said.per_row(its) > 0
    is_out = _exceeds(n_script, n_all, rule.at_most)
    if rule.more_than is not None:
        is_out |= ~_exceeds(n_script, n_all, rule.more_than)
    rows = np.flatnonzero(is_out & speaks)
    whose = "all messages" if rule.role == EVERYBODY else rule.role
    wanted = [f"more than {rule.more_than:g}"] if rule.more_than is not None else []
    wanted += [f"at most {rule.at_most:g}"] if rule.at_most < 1 else []
    details = [
        f"{whose}: {part:,} of {whole:,} characters are {rule.script}{_share(part, whole)}, wanted {' and '.join(wanted)}"
        for part, whole in zip(n_script[rows].tolist(), n_all[rows].tolist(), strict=True)
    ]
    yield Finding(reason=DropReason.SCRIPT_SHARE, rows=rows, details=details)


def _of_noise(said: Said, rule: Noise) -> Iterator[Finding]:
    its = said.by(rule.role)
    if rule.max_symbols < 1:
        n_symbols = said.counts[:, classes().symbols].sum(axis=1)
        at = _first(said, its & _exceeds(n_symbols, said.n_chars, rule.max_symbols))
        details = _parts(n_symbols[at], said.n_chars[at], "characters are symbols", rule.max_symbols)
        yield _told(said, at, DropReason.TOO_MANY_SYMBOLS, details)
    if rule.max_run is not None:
        at = _first(said, its & (said.longest > rule.max_run))
        details = [f"one character {n:,} times in a row, at most {rule.max_run:,}" for n in said.longest[at].tolist()]
        yield _told(said, at, DropReason.LONG_RUN, details)
    if rule.max_repeated_lines < 1:
        n_lines, n_repeated = said.lines(its)
        at = _first(said, its & _exceeds(n_repeated, n_lines, rule.max_repeated_lines))
        details = _parts(n_repeated[at], n_lines[at], "lines repeat one before", rule.max_repeated_lines)
        yield _told(said, at, DropReason.REPEATED_LINES, details)


def _of_pattern(said: Said, rule: Pattern) -> Iterator[Finding]:
    at = _first(said, said.contains(rule.pattern, said.by(rule.role)))
    details = [f"has {found[:_SHOWN]!r}, which {rule.pattern!r} matches" for found in said.matches(rule.pattern, at)]
    yield _told(said, at, DropReason.PATTERN, details)


def _exceeds(parts: NDArray[np.integer], wholes: NDArray[np.integer], share: float) -> Bools:
    """Return where a part is more than this share of its whole; of nothing the share is 0."""
    exceeds: Bools = np.divide(parts, wholes, out=np.zeros(len(parts)), where=wholes > 0) > share
    return exceeds


def _parts(parts: NDArray[np.integer], wholes: NDArray[np.integer], what: str, limit: float) -> list[str]:
    return [
        f"{part:,} of {whole:,} {what}{_share(part, whole)}, at most {limit:g}"
        for part, whole in zip(parts.tolist(), wholes.tolist(), strict=True)
    ]


def _share(part: int, whole: int) -> str:
    return f" ({part / whole:.3f})" if whole else ""


def _first(said: Said, is_found: Bools) -> I64:
    """Return, of each row, the place of the first message in which something is found."""
    at = np.flatnonzero(is_found)
    is_first = np.concatenate([np.ones(min(len(at), 1), np.bool_), np.diff(said.row[at]) > 0])
    return np.asarray(at[is_first])


def _told(said: Said, at: I64, reason: DropReason, details: list[str]) -> Finding:
    roles, numbers = said.role.gather(at).to_list(), said.index[at].tolist()
    told = [f"message {i} ({role}): {text}" for i, role, text in zip(numbers, roles, details, strict=True)]
    return Finding(reason=reason, rows=said.row[at], details=told)
