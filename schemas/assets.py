"""What comes from outside and enters the stages by value, so that a key covers every byte of it."""

import msgspec


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """A tokenizer: the bytes of its tokenizer.json, with the template's missing control tokens already added."""

    tokenizer_json: bytes
    control_tokens: tuple[str, ...] = ()
    """Added tokens that only a template may write, beside those flagged special: the ones that stand in the template."""
    bos_token: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A chat template and the variables that Hugging Face gives to every template of a tokenizer."""

    name: str
    source: str
    """Jinja source text, unmodified."""
    variables: dict[str, str] = {}
    """bos_token, eos_token and the other named special tokens, as text."""
    control_tokens: tuple[str, ...] = ()
    """Texts of the tokenizer's special added tokens; the stop of a turn is one of them."""
