"""Which kernel is chosen, and what it is given."""

import pytest
import torch
from torch import Tensor, nn

from schemas.models import Model
from trainer.model import block
from trainer.model.architecture import new_architecture
from trainer.model.attention import Documents, suits_varlen

NEW = frozenset({"query", "window_size", "enable_gqa"})
OLD = frozenset({"query", "is_causal"})


@pytest.mark.parametrize(
    ("head_dim", "capability", "arguments", "needs_window", "expected"),
    [
        (64, (9, 0), NEW, True, True),
        (256, (8, 0), NEW, False, True),
        (64, (9, 0), OLD, False, True),
        (64, (9, 0), OLD, True, False),
        (64, (7, 5), NEW, False, False),
        (60, (9, 0), NEW, False, False),
        (264, (9, 0), NEW, False, False),
        (64, (9, 0), frozenset(), False, False),
    ],
)
def test_the_kernel_is_chosen_only_where_it_works(
    head_dim: int, capability: tuple[int, int], arguments: frozenset[str], needs_window: bool, expected: bool
) -> None:
    assert suits_varlen(head_dim, capability, arguments, needs_window=needs_window) is expected


class Widening(nn.Module):
    """What autocast makes of a norm on CUDA: its result is wider than what went in."""

    def forward(self, x: Tensor) -> Tensor:
        return x.double()


def test_q_k_and_v_are_of_one_type_when_a_norm_widens(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = Model(hidden_size=16, num_attention_heads=2, model_type="qwen3")
    attention = block.Attention(new_architecture(sizes, vocab_size=9), 0)
    attention.q_norm = attention.k_norm = Widening()  # type: ignore[assignment]
    seen: list[torch.dtype] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object) -> Tensor:
        seen.extend((q.dtype, k.dtype, v.dtype))
        return q

    monkeypatch.setattr(block, "attend", attend)
    turn = (torch.ones(3, 1, 8), torch.zeros(3, 1, 8))
    attention(torch.zeros(3, 16), turn, Documents.of((3,), torch.device("cpu")), None, None, None)
    assert seen == [torch.float32] * 3
