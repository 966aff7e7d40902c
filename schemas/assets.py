"""What comes from outside and enters the stages by value, so that a key covers every byte of it."""

import msgspec


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer: its tokenizer.json."""

    tokenizer_json: bytes
    """As it lies on disk, byte for byte; where the template declares tokens that it lacks, with these at its end."""
    control_tokens: tuple[str, ...] = ()
    """Added tokens that only the template may write: those flagged special, and those it writes."""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A chat template and the variables that Hugging Face gives to every template of a tokenizer."""

    name: str
    source: str
    """Jinja source text, unmodified."""
    tool_use: str = ""
    """Source for conversations with tools, where the tokenizer has a template of that name; empty: the same one."""
    variables: dict[str, str] = {}
    """bos_token, eos_token and the other named special tokens, as text."""
    control_tokens: tuple[str, ...] = ()
    """The vocabulary's control tokens that are flagged special or declared; the stop of a turn is one of them."""
    plain_control_tokens: tuple[str, ...] = ()
    """The vocabulary's other control tokens: never taken for a stop by itself."""
