"""How text becomes tokens."""

from typing import Annotated, Literal

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
    straddling: Literal["keep", "cut"] = "keep"
    """A token may begin in the generation prompt and end in the answer. keep: the text is encoded in one piece, as
    tokenizers would, and such a token belongs to the prompt; cut: each answer is encoded apart from what stands before it,
    so that exactly the tokens are trained that a model writes after that prompt. Choose cut where the report counts
    straddling/turn_start and prompts are not encoded together with the beginning of an answer when the model is served."""
    max_seq_len: Annotated[int, msgspec.Meta(ge=8, le=1 << 20)] | None = None
    """Most tokens of a conversation; not set: [pack] max_seq_len."""
    too_long: Literal["drop", "keep_turns", "windows", "truncate_head"] = "drop"
    """What to do with a conversation that has more (docs/long-conversations.md). drop: leave it out; keep_turns: keep the
    whole turns that fit, from the beginning; windows: cut it into several, each turn trained in one of them; truncate_head:
    keep the end. An answer is never cut, unless cut_answers says so."""
    cut_answers: bool = False
    """Keep the beginning of a turn that alone is too long, where too_long would lose it: up to max_seq_len, without a stop
    token. With too_long = "drop" nothing is kept. [mask] without_stop says whether such an answer is trained, and has to be
    set."""
