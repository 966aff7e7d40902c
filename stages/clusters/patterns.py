"""Patterns of names: `*` stands for any text, `?` for one character, and nothing else is special."""

from typing import Final

_WILD: Final = {"*": ".*", "?": "."}
_SPECIAL: Final = frozenset(r"\.+()|[]{}^$#&-~")


def expression(pattern: str) -> str:
    """Return the pattern, which a name must match whole, as an expression of Rust's regex, which takes linear time."""
    parts = [_WILD.get(c) or (f"\\{c}" if c in _SPECIAL else c) for c in pattern]
    return rf"(?s)\A{''.join(parts)}\z"
