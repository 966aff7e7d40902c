"""A whole conversation in one text, parted by markers: which style it has, and what each speaker says."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape
from stages.ingest.shapes.moss import BLANKS, ENDS, said

_ANYWHERE, _LINE, _PARAGRAPH = range(3)
"""Where a marker stands: within a line, at its beginning, or after a blank line; the first of a text stands anywhere."""


class Style(NamedTuple):
    """One way of marking who speaks."""

    name: str
    marker: re.Pattern[str]
    """A marker; its first group names the speaker."""
    speakers: dict[str, str]
    """Names in markers, in lower case, to roles."""
    borders: tuple[int, ...]
    """Where its markers stand, the strictest first: a looser one only counts where a stricter one finds no two speakers."""
    ends: dict[str, str] | None = None
    """What each speaker's part ends with, where the style marks the end too; markers then follow ends."""
    may_follow_text: bool = True
    """Whether text may stand before the first marker: what it says becomes the system message."""


_NAMES: Final = {"system": "system", "human": "user", "user": "user", "assistant": "assistant", "bot": "assistant"}
STYLES: Final = (
    Style("hashes", re.compile(r"### ?(System|Human|User|Assistant):"), _NAMES, (_LINE, _ANYWHERE)),
    Style("angles", re.compile(r"<(human|bot)>:"), _NAMES, (_LINE, _ANYWHERE)),
    Style("bars", re.compile(r"\[\|(Human|AI)\|\]"), {"human": "user", "ai": "assistant"}, (_LINE, _ANYWHERE)),
    Style(
        "moss",
        re.compile(r"<\|(Human|Inner Thoughts|Commands|Results|MOSS)\|>:"),
        {"human": "user", "moss": "assistant"},
        (_ANYWHERE,),
        ENDS,
    ),
    Style(
        "brackets",
        re.compile(r"\[(Human|MOSS)\]:"),
        {"human": "user", "moss": "assistant"},
        (_ANYWHERE,),
        {"Human": "<eoh>", "MOSS": "<eoa>"},
    ),
    Style(
        "names",
        re.compile(r"(Human|User|Assistant|System):"),
        _NAMES,
        (_PARAGRAPH, _LINE),
        may_follow_text=False,
    ),
)
"""The styles that are known, in the order in which they are tried."""


def style_of(text: str) -> Style | None:
    """Return the style of a text that is a conversation, None if it is none.

    The text begins with a marker of the style, or both speakers' markers stand at the beginning of lines. Names alone (`Human:`)
    are common in prose, so there both are asked for, and nothing may stand before the first.
    """
    top = text.lstrip(BLANKS)
    for style in STYLES:
        if found := style.marker.match(top):
            if style.may_follow_text and found[1].lower() in style.speakers:
                return style
            if _speaks_twice(_markers(text, style, _LINE), style):
                return style
    for style in STYLES:
        if style.may_follow_text and style.marker.search(text) and _speaks_twice(_markers(text, style, _LINE), style):
            return style
    return None


def messages_of(text: str, style: Style, at: str, line: Line, instruction: str | None = None) -> list[Message]:
    """Return the messages of a conversation in one text; what is said is stripped of the blanks around it, and of nothing else.

    Text before the first marker, or else `instruction`, is the system message. An open marker at the end gives an empty
    message. Raises LineError where it cannot be told which markers begin a turn, or an end is missing.
    """
    markers = _chosen(text, style, at)
    before = text[: markers[0].start()].strip(BLANKS) if markers else text.strip(BLANKS)
    if before and not style.may_follow_text:
        raise bad_shape(at, f"nothing before the first marker of {style.marker.pattern}", before)
    if before and instruction and before != instruction.strip(BLANKS):
        raise bad_shape(at, "the instruction, or nothing, before the first marker", before)
    system = instruction or before
    ends = [*(marker.start() for marker in markers[1:]), len(text)]
    sections = [
        (marker[1], _body(text[marker.end() : end].strip(BLANKS), marker[1], style, at, is_last=end == len(text)))
        for marker, end in zip(markers, ends, strict=True)
    ]
    first = [Message("system", system)] if system else []
    if style.ends is ENDS:
        return [*first, *said(((name, body, None) for name, body in sections), system, line)]
    return [*first, *(Message(style.speakers[name.lower()], body) for name, body in sections)]


def _body(body: str, name: str, style: Style, at: str, *, is_last: bool) -> str:
    if style.ends is None or (is_last and not body):
        return body
    if not body.endswith(style.ends[name]):
        raise bad_shape(at, f"{style.ends[name]} after what {name} says", body[-40:])
    return body[: -len(style.ends[name])].strip(BLANKS)


def _markers(text: str, style: Style, border: int) -> list[re.Match[str]]:
    """Return the markers of `style` that stand at `border` or a stricter one; where ends are marked, those that follow one."""
    top = len(text) - len(text.lstrip(BLANKS))
    found: list[re.Match[str]] = []
    for marker in style.marker.finditer(text):
        start = marker.start()
        if style.ends is None or not found:
            is_border = start <= top or _border(text, start) >= (border if style.ends is None else _LINE)
        else:
            is_border = _follows_end(text, start, style.ends)
        if is_border:
            found.append(marker)
    return found


def _border(text: str, start: int) -> int:
    before = text[max(start - 4, 0) : start].replace("\r\n", "\n")  # no more is looked at: a text may be all markers
    return _PARAGRAPH if before.endswith("\n\n") else _LINE if before.endswith("\n") else _ANYWHERE


def _follows_end(text: str, start: int, ends: dict[str, str]) -> bool:
    while start and text[start - 1] in BLANKS:
        start -= 1
    return text.endswith(tuple(ends.values()), 0, start)


def _chosen(text: str, style: Style, at: str) -> list[re.Match[str]]:
    """Return the markers that begin a turn: those at the strictest border at which both speakers have one."""
    readings = [_markers(text, style, border) for border in style.borders]
    n_loose = next((i for i, markers in enumerate(readings) if _speaks_twice(markers, style)), len(readings) - 1)
    chosen = readings[n_loose]
    if chosen and _is_certain(text, chosen):
        return chosen
    for looser in readings[n_loose + 1 :]:
        if len(looser) > len(chosen) and _alternates(looser, style):
            raise LineError(
                DropReason.BAD_SHAPE,
                f"{at}: {len(looser)} markers, of which {len(chosen)} stand at the beginning of a line or paragraph: it cannot"
                " be told whether the others begin a turn or are quoted; write each turn on lines of its own",
            )
    return chosen


def _is_certain(text: str, markers: Sequence[re.Match[str]]) -> bool:
    # hh-rlhf writes a blank line before every turn, the first included.
    return markers[0].start() == 2 and text.startswith("\n\n")


def _roles(markers: Sequence[re.Match[str]], style: Style) -> list[str]:
    return [style.speakers.get(marker[1].lower(), "") for marker in markers]


def _speaks_twice(markers: Sequence[re.Match[str]], style: Style) -> bool:
    return {"user", "assistant"} <= set(_roles(markers, style))


def _alternates(markers: Sequence[re.Match[str]], style: Style) -> bool:
    roles = [role for role in _roles(markers, style) if role != "system"]
    return all(role != before for before, role in pairwise(roles))
