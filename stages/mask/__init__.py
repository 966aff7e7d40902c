"""Which tokens are trained: one table of weights, and a gate that checks what came of it."""

from stages.mask.gate import MaskError
from stages.mask.report import count_tokens
from stages.mask.settings import Mask
from stages.mask.stage import label_tokens

__all__ = ["Mask", "MaskError", "count_tokens", "label_tokens"]
