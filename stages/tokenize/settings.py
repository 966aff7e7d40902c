"""How text becomes tokens."""

from typing import Literal

import msgspec


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How text becomes tokens."""

    tokenizer: str = "data/tokenizer"
    """A directory with tokenizer.json, the file itself, or a name on the Hugging Face hub."""
    engine: Literal["auto", "gigatoken", "tokenizers"] = "auto"
    """auto: gigatoken where it proves itself equal to tokenizers, else tokenizers. The ids are the same."""
    verify: Literal["sample", "all"] = "sample"
    """Rows of each shard whose ids are compared with those of tokenizers when gigatoken is used; a shard in which they
    differ is encoded by tokenizers."""
