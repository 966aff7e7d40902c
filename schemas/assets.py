"""What comes from outside and enters the stages by value, so that a key covers every byte of it."""

import msgspec


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer: the bytes of its tokenizer.json, as they lie on disk; nothing is ever added to them."""

    tokenizer_json: bytes
    control_tokens: tuple[str, ...] = ()
    """Added tokens that only the template may write: those flagged special, and those it writes."""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A chat template and the variables that Hugging Face gives to every template of a tokenizer."""

    name: str
    source: str
    """Jinja source text, unmodified."""
    variables: dict[str, str] = {}
    """bos_token, eos_token and the other named special tokens, as text."""
    control_tokens: tuple[str, ...] = ()
    """The vocabulary's control tokens that are flagged special; the stop of a turn is one of them."""
    plain_control_tokens: tuple[str, ...] = ()
    """The vocabulary's other control tokens, not flagged special: never taken for a stop by itself."""
