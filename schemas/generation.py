"""The section [generation]: how a model writes, in samples during training and wherever nothing else is asked."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas.models import Count, Positive

COLDEST: Final = 1e-6
"""Smallest temperature but 0."""


class Generation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are written, token by token."""

    max_new_tokens: Positive = 64
    """Longest answer, in tokens."""
    temperature: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0
    """Randomness; 0 takes the likeliest token."""
    top_k: Count = 0
    """Only so many of the likeliest tokens are drawn from; 0: all."""
    top_p: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    """Only the likeliest tokens whose probabilities together reach this are drawn from (Holtzman et al. 2019)."""
    repetition_penalty: Annotated[float, Meta(ge=1.0, le=100.0)] = 1.0
    """Divides positive logits of tokens that the prompt or the answer already has, and multiplies negative ones (Keskar 2019)."""
    batch: Annotated[int, Meta(ge=1, le=4096)] = 8
    """Answers that are written side by side."""

    def __post_init__(self) -> None:
        """Refuse what would do nothing, and what no number holds."""
        if 0 < self.temperature < COLDEST:
            raise ValueError(
                f"temperature = {self.temperature}: logits over so little are beyond all numbers; write 0, which takes the "
                f"likeliest token, or at least {COLDEST}"
            )
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise ValueError(
                f"top_k = {self.top_k}, top_p = {self.top_p} do nothing at temperature = 0, which takes the likeliest token; "
                "set temperature, e.g. 0.8, or drop them"
            )
