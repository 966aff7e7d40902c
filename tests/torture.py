"""A file of hostile lines, each with what must become of it; `python -m tests.torture PATH N` writes one to look at."""

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas.reasons import DropReason

CAP: Final = 1 << 16
"""Longest line that is to be read, in bytes without its line end."""
MAX_DEPTH: Final = 64

Said = list[tuple[str, str]]
_TEXTS: Final = (
    "Why is the sky blue?",
    "因为瑞利散射。",
    "a\u2028b\u2029c\x85d",
    'say "yes": or {"role": "user"}',
    "back\\slash \\u0041 \\n",
    "tab\tline\r\nfeed\x01\x1f\x7f",
    "🙂👩‍👩‍👧 \U0010ffff \uffff \ufeff",
    "  blanks at both ends \n",
    "None",
    "null",
    "<|im_end|>",
    "é e\u0301 ﷽ ‮right to left",
    "x" * 3_000,
)


class Line(NamedTuple):
    """One line of the file."""

    kind: str
    raw: bytes
    """Without its line end."""
    reason: DropReason | None
    """Why it is quarantined; None if it is kept."""
    said: Said | None = None
    """What is kept of it."""
    is_record: bool = True
    """A blank line is none."""


def torture(n: int, seed: int = 0) -> Iterator[Line]:
    """Yield `n` lines, every kind in turn and in random order, a third of them ordinary."""
    rng = random.Random(seed)
    kinds: list[Callable[[random.Random], Line]] = []
    for i in range(n):
        if i % 3 == 0:
            yield _messages(rng)
            continue
        if not kinds:
            kinds = list(KINDS)
            rng.shuffle(kinds)
        yield kinds.pop()(rng)


def write(path: Path, n: int, seed: int = 0) -> list[tuple[Line, int, int]]:
    """Write such a file and return (line, its number, where it starts) of each; it begins with a byte order mark, and its last
    line has no end.
    """
    rng = random.Random(seed)
    placed = []
    with path.open("wb") as file:
        file.write(b"\xef\xbb\xbf")
        for number, line in enumerate(torture(n, seed), 1):
            placed.append((line, number, file.tell() if number > 1 else 0))
            end = b"" if number == n else rng.choice((b"\n", b"\n", b"\n", b"\r\n"))
            file.write(line.raw + end)
    return placed


def _turns(rng: random.Random) -> Said:
    system = [("system", rng.choice(_TEXTS))] if rng.random() < 0.2 else []
    return system + [(role, rng.choice(_TEXTS)) for _ in range(rng.randint(1, 3)) for role in ("user", "assistant")]


def _dump(rng: random.Random, record: Any) -> bytes:
    separators = rng.choice(((",", ":"), (", ", ": "), (", ", ": "), (" ,  ", "  :\t")))
    text = json.dumps(record, ensure_ascii=rng.random() < 0.5, separators=separators)
    return rng.choice(("", "", " ", "\t")).encode() + text.encode() + rng.choice((b"", b"", b" "))


def _of(said: Said, role: str = "role", content: str = "content") -> list[dict[str, Any]]:
    return [{role: speaker, content: text} for speaker, text in said]


def _messages(rng: random.Random) -> Line:
    said = _turns(rng)
    record: dict[str, Any] = {rng.choice(("messages", "conversations")): _of(said)}
    if rng.random() < 0.5:
        record = {"id": rng.choice(("a", 7, "ü")), **record, "source": "torture"}
    return Line("messages", _dump(rng, record), None, said)


def _extra(rng: random.Random) -> Line:
    said = _turns(rng)
    extra = rng.choice(({"meta": {"a": [1, {"b": None}]}}, {"n": 10**40, "x": -0.0, "t": True}, {"note": 'a ":" b'}))
    return Line("extra keys", _dump(rng, {"messages": _of(said)} | extra), None, said)


def _sharegpt(rng: random.Random) -> Line:
    said = _turns(rng)
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    turns = [{"from": names[role], "value": text} for role, text in said]
    return Line("sharegpt", _dump(rng, {"conversations": turns}), None, said)


def _alpaca(rng: random.Random) -> Line:
    asked, answer = rng.choice(_TEXTS), rng.choice(_TEXTS)
    record = {"instruction": asked, "input": "", "output": answer}
    return Line("alpaca", _dump(rng, record), None, [("user", asked), ("assistant", answer)])


def _prompt(rng: random.Random) -> Line:
    asked, answer = rng.choice(_TEXTS), rng.choice(_TEXTS)
    record = {"prompt": asked, "completion": answer}
    return Line("prompt", _dump(rng, record), None, [("user", asked), ("assistant", answer)])


def _trailing(rng: random.Random) -> Line:
    said = _turns(rng)
    more = [("user", "and?")] * rng.randint(1, 1)
    return Line("trailing", _dump(rng, {"messages": _of(said + more)}), None, said)


def _aliases(rng: random.Random) -> Line:
    turns = [{"role": "Human", "content": "q"}, {"role": " BOT ", "content": "a"}]
    return Line("aliases", _dump(rng, {"messages": turns}), None, [("user", "q"), ("assistant", "a")])


def _parts(rng: random.Random) -> Line:
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "\u2028"}]
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": "b"}]
    return Line("parts", _dump(rng, {"messages": turns}), None, [("user", "a\u2028"), ("assistant", "b")])


def _spelled(kind: str, reason: DropReason | None, *raws: bytes, said: Said | None = None) -> Callable[..., Line]:
    return lambda rng: Line(kind, rng.choice(raws), reason, said)


def _refused(kind: str, reason: DropReason, *records: Any) -> Callable[[random.Random], Line]:
    return lambda rng: Line(kind, _dump(rng, rng.choice(records)), reason)


def _blank(rng: random.Random) -> Line:
    return Line("blank", rng.choice((b"", b" ", b"\t \t", b"\r")), None, is_record=False)


def _broken(rng: random.Random) -> Line:
    raw = _messages(rng).raw.strip()
    return Line("cut off", raw[: rng.randint(1, len(raw) - 1)].decode("utf-8", "ignore").encode(), DropReason.BAD_JSON)


def _bad_utf8(rng: random.Random) -> Line:
    bad = rng.choice(
        (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x80")
    )
    return Line("bad utf-8", _around(b'"' + bad + b'"'), DropReason.BAD_UTF8)


def _long(rng: random.Random) -> Line:
    size = CAP + rng.choice((1, 2, CAP, 5 * CAP))
    raw = b'{"messages": [{"role": "user", "content": "'
    return Line("long", raw + b"x" * (size - len(raw)), DropReason.LINE_TOO_LONG)


def _nearly_long(_: random.Random) -> Line:
    head, tail = b'{"messages": [{"role": "user", "content": "', b'"}, {"role": "assistant", "content": "a"}]}'
    text = "x" * (CAP - len(head) - len(tail))
    return Line("at the cap", head + text.encode() + tail, None, [("user", text), ("assistant", "a")])


def _bomb(rng: random.Random) -> Line:
    depth = rng.choice((MAX_DEPTH + 1, 1_000, 10_000))
    raw = rng.choice(
        (b"[" * depth, b"[" * depth + b"]" * depth, b'{"messages": ' + b'{"a":' * depth + b"1" + b"}" * (depth + 1))
    )
    return Line("nesting", raw, DropReason.TOO_DEEP)


def _deep(_: random.Random) -> Line:
    depth = MAX_DEPTH - 1
    raw = (
        b'{"meta": '
        + b"[" * depth
        + b"]" * depth
        + b', "messages": '
        + json.dumps(_of([("user", "q"), ("assistant", "a")])).encode()
        + b"}"
    )
    return Line("deep", raw, None, [("user", "q"), ("assistant", "a")])


def _around(content: bytes) -> bytes:
    return b'{"messages": [{"role": "user", "content": ' + content + b'}, {"role": "assistant", "content": "a"}]}'


_QA: Final = _of([("user", "q"), ("assistant", "a")])
KINDS: Final[tuple[Callable[[random.Random], Line], ...]] = (
    _extra,
    _sharegpt,
    _alpaca,
    _prompt,
    _trailing,
    _aliases,
    _parts,
    _blank,
    _broken,
    _bad_utf8,
    _long,
    _nearly_long,
    _bomb,
    _deep,
    _spelled("surrogate pair", None, _around(rb'"\ud83d\uDE42"'), said=[("user", "🙂"), ("assistant", "a")]),
    _spelled(
        "half a surrogate pair",
        DropReason.LONE_SURROGATE,
        _around(rb'"\ud83d"'),
        _around(rb'"\udc00\ud800"'),
        _around(rb'"\ud83d\u0041"'),
        _around(rb'"a"')[:-1] + rb', "note": "\uDFFF"}',
    ),
    _spelled("nul", DropReason.NUL_CHARACTER, _around(rb'"a\u0000b"'), _around(rb'"a"')[:-1] + rb', "k\u0000": 1}'),
    _spelled("raw nul", DropReason.BAD_JSON, _around(b'"a\0b"'), b"\0" * 100),
    _spelled(
        "a key twice",
        DropReason.DUPLICATE_KEY,
        _around(b'"a", "content": "b"'),
        _around(rb'"a", "c\u006fntent": "b"'),
        _around(b'"a"')[:-1] + b', "messages": []}',
        _around(b'"a"')[:-1] + b', "meta": {"x": [{"y": 1, "y" : 1}]}}',
        _around(b'"a"')[:-1] + b', "id": 1, "id": 1}',
    ),
    _spelled(
        "not finite",
        DropReason.BAD_JSON,
        *(_around(b'"a"')[:-1] + b', "n": ' + n + b"}" for n in (b"NaN", b"-Infinity", b"1e999", b"-1e999")),
    ),
    _spelled(
        "not JSON",
        DropReason.BAD_JSON,
        b"{'messages': []}",
        b'{"messages": [],}',
        _around(b'"a"') + b" {}",
        _around(b'"a\tb"'),
        _around(rb'"\x"'),
        _around(rb'"\u12"'),
        b'{"n": 01}',
        b'{"n": +1}',
        b'{"n": .5}',
        b"// comment",
        b"undefined",
        b"tru",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
    ),
    _refused("no object", DropReason.UNKNOWN_SHAPE, 1, "text", True, None, [], [1, 2]),
    _refused("no conversation", DropReason.UNKNOWN_SHAPE, {}, {"text": "plain"}, {"messages": "q"}, {"messages": None}),
    _refused(
        "wrong type",
        DropReason.BAD_SHAPE,
        {"messages": [{"role": "user", "content": 1}, _QA[1]]},
        {"messages": [{"role": "user", "content": {"a": 1}}, _QA[1]]},
        {"messages": [{"role": None, "content": "q"}, _QA[1]]},
        {"messages": [_QA[0], {"role": "assistant", "content": "a", "weight": -1}]},
        {"messages": [_QA[0], {"role": "assistant", "content": "a", "loss_mask": 1}]},
    ),
    _refused("role", DropReason.UNKNOWN_ROLE, {"messages": [{"role": "narrator", "content": "q"}, _QA[1]]}),
    _refused(
        "empty",
        DropReason.EMPTY_MESSAGE,
        {"messages": [{"role": "user", "content": ""}, _QA[1]]},
        {"messages": [_QA[0], {"role": "assistant", "content": None}]},
        {"prompt": "", "completion": "c"},
    ),
    _refused("unanswered", DropReason.NO_ANSWER, {"messages": [_QA[0]]}, {"prompt": "p", "completion": None}),
    _refused("twice", DropReason.SAME_ROLE, {"messages": [_QA[0], _QA[0], _QA[1]]}, {"messages": [*_QA, _QA[1]]}),
    _refused(
        "picture",
        DropReason.UNSUPPORTED_PART,
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}, _QA[1]]},
    ),
)


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
