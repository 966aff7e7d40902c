"""One layer of a decoder: attention, then feed-forward.

Shapes: T tokens of a batch, C hidden, H query heads, K key/value heads, D head width. q, k, v and gate, up are single matrices
in memory; trainer.model.layout splits and joins them on disk.
"""

import torch
from torch import Tensor, nn

from trainer.model.architecture import Architecture
from trainer.model.attention import Documents, attend
from trainer.model.cache import Cache
from trainer.model.dropout import BRANCH_OF_ATTENTION, BRANCH_OF_FEED_FORWARD, drop
from trainer.model.feed_forward import make_feed_forward
from trainer.model.linear import Linear
from trainer.model.norms import RMSNorm, make_norm
from trainer.model.rope import rotate

Turn = tuple[Tensor, Tensor]
"""Cosines and sines of the tokens' positions."""


class Attention(nn.Module):
    """Grouped-query attention, with rotary positions where there are any."""

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.layer, self.window = layer, a.sliding_window
        self.n_q, self.n_kv, self.head_dim = a.num_attention_heads, a.num_key_value_heads, a.head_dim
        n_heads = self.n_q + 2 * self.n_kv
        self.qkv_proj = Linear(a.hidden_size, n_heads * a.head_dim, bias=a.qkv_bias)
        self.o_proj = Linear(self.n_q * a.head_dim, a.hidden_size, bias=a.o_bias)
        self.q_norm = RMSNorm(a.head_dim, a.rms_norm_eps) if a.qk_norm else None
        self.k_norm = RMSNorm(a.head_dim, a.rms_norm_eps) if a.qk_norm else None

    def forward(
        self,
        x_TC: Tensor,
        turn: Turn | None,
        documents: Documents,
        cache: Cache | None,
        keys_T: Tensor | None,
        rows_S: Tensor | None,
    ) -> Tensor:
        """Return what each token gathers from its document, [T, C]; of `rows_S` alone, [S, C], where they are given."""
        qkv = self.qkv_proj(x_TC, keys_T).view(-1, self.n_q + 2 * self.n_kv, self.head_dim)
        if qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16:
            # the CPU's bfloat16 attention has a backward pass three times slower than float32's
            qkv = qkv.float()
        qk, v = torch.split(qkv, [self.n_q + self.n_kv, self.n_kv], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = torch.split(qk, [self.n_q, self.n_kv], dim=1)
            # autocast takes norms in float32; attention wants q, k and v of one type
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1).to(v.dtype)
        if turn is not None:
            qk = rotate(qk, *(angle.to(qk.dtype) for angle in turn))
        q, k = torch.split(qk, [self.n_q, self.n_kv], dim=1)
        if cache is None:
            out = attend(q, k, v, documents, window=self.window)
        else:
            out = cache.attend(self.layer, q, k, v, documents.lengths, window=self.window)
        mixed: Tensor = self.o_proj(
            _at(rows_S, out.reshape(len(x_TC), -1)), None if keys_T is None else _at(rows_S, keys_T)
        )
        return mixed


class Block(nn.Module):
    """Attention, then feed-forward, each added to what came in."""

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.input_layernorm = make_norm(a)
        self.self_attn = Attention(a, layer)
        self.post_attention_layernorm = make_norm(a)
        self.mlp = make_feed_forward(a)

    def forward(
        self,
        x_TC: Tensor,
        turn: Turn | None,
        documents: Documents,
        cache: Cache | None = None,
        keys_T: Tensor | None = None,
        dropout: float = 0.0,
        rows_S: Tensor | None = None,
    ) -> Tensor:
        """Return the residual stream after this block, [T, C]; with `keys_T` a share of `dropout` of each branch is left out.

        With `rows_S` all that follows attention is done for these tokens alone, and theirs is returned, [S, C].
        """
        attended = self.self_attn(self.input_layernorm(x_TC), turn, documents, cache, keys_T, rows_S)
        x_TC, keys_T = _at(rows_S, x_TC), None if keys_T is None else _at(rows_S, keys_T)
        x_TC = x_TC + drop(attended, keys_T, BRANCH_OF_ATTENTION, dropout)
        thought = self.mlp(self.post_attention_layernorm(x_TC), keys_T)
        return x_TC + drop(thought, keys_T, BRANCH_OF_FEED_FORWARD, dropout)


def _at(rows_S: Tensor | None, of_T: Tensor) -> Tensor:
    """Return `of_T` at `rows_S` alone, or whole where there are none."""
    return of_T if rows_S is None else of_T.index_select(0, rows_S)
