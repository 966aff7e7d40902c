"""What a chat template says of itself in a comment: `{#- tokens: <|im_start|> <|im_end|> -#}`."""

import re
from typing import Final

import msgspec

_COMMENT: Final = re.compile(r"\{#[-+]?\s*tokens:(.*?)[-+]?#\}", re.DOTALL)
_VARIABLE: Final = re.compile(r"[a-z]+(?:_[a-z]+)*_token")


class Declaration(msgspec.Struct, frozen=True):
    """The control tokens that a template needs."""

    tokens: tuple[str, ...] = ()
    """Spelled out, in the order in which a tokenizer that lacks them gets them."""
    variables: tuple[str, ...] = ()
    """Variables that must hold a token of the tokenizer, e.g. eos_token."""


def declaration(source: str) -> Declaration:
    """Read what `source` declares; nothing where it has no such comment.

    The words of the comment are separated by white space. One that reads `eos_token` names the variable.
    """
    words = dict.fromkeys(word for match in _COMMENT.finditer(source) for word in match[1].split())
    variables = tuple(word for word in words if _VARIABLE.fullmatch(word))
    return Declaration(tuple(word for word in words if word not in variables), variables)
