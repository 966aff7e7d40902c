"""A decoder of the Llama family over one-dimensional packed tokens.

Shapes: T tokens of a batch, C hidden, H query heads, K key/value heads, D head width, S supervised rows, V vocabulary.
q, k, v and gate, up are single matrices in memory; trainer.model.weights splits and joins them on disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.loss import cross_entropy
from trainer.model.architecture import Architecture
from trainer.model.attention import Documents, attend, attend_cached
from trainer.model.rope import inverse_frequencies, rotate, rotation


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Documents laid end to end, and the rows among them that are trained.

    `rows_S` are indices of tokens whose successor, in the same document, is `targets_S` with weight `weights_S`.
    """

    input_ids_T: Tensor
    positions_T: Tensor
    lengths: tuple[int, ...]
    rows_S: Tensor
    targets_S: Tensor
    weights_S: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on `device`."""
        return Batch(
            input_ids_T=self.input_ids_T.to(device, non_blocking=True),
            positions_T=self.positions_T.to(device, non_blocking=True),
            lengths=self.lengths,
            rows_S=self.rows_S.to(device, non_blocking=True),
            targets_S=self.targets_S.to(device, non_blocking=True),
            weights_S=self.weights_S.to(device, non_blocking=True),
        )


class Cache:
    """Keys and values of the tokens read so far, one pair per layer."""

    def __init__(self, n_layers: int) -> None:
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * n_layers

    @property
    def n_tokens(self) -> int:
        """Return how many tokens were read."""
        first = self.layers[0]
        return 0 if first is None else first[0].shape[0]

    def extend(self, layer: int, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens and return all of them."""
        before = self.layers[layer]
        after = (k_TKD, v_TKD) if before is None else (torch.cat((before[0], k_TKD)), torch.cat((before[1], v_TKD)))
        self.layers[layer] = after
        return after


class RMSNorm(nn.Module):
    """Scale each vector to a root mean square of 1 (Zhang and Sennrich 2019)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised `x`, in its own dtype."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.layer, self.window = layer, a.sliding_window
        self.n_q, self.n_kv, self.head_dim = a.num_attention_heads, a.num_key_value_heads, a.head_dim
        n_heads = self.n_q + 2 * self.n_kv
        self.qkv_proj = nn.Linear(a.hidden_size, n_heads * a.head_dim, bias=a.qkv_bias)
        self.o_proj = nn.Linear(self.n_q * a.head_dim, a.hidden_size, bias=a.o_bias)
        self.q_norm = RMSNorm(a.head_dim, a.rms_norm_eps) if a.qk_norm else None
        self.k_norm = RMSNorm(a.head_dim, a.rms_norm_eps) if a.qk_norm else None

    def forward(self, x_TC: Tensor, turn: tuple[Tensor, Tensor], documents: Documents, cache: Cache | None) -> Tensor:
        """Return what each token gathers from its document, [T, C]."""
        qkv = self.qkv_proj(x_TC).view(-1, self.n_q + 2 * self.n_kv, self.head_dim)
        if qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16:
            # the CPU's bfloat16 attention has a backward pass three times slower than float32's
            qkv = qkv.float()
        qk, v = torch.split(qkv, [self.n_q + self.n_kv, self.n_kv], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = torch.split(qk, [self.n_q, self.n_kv], dim=1)
            # autocast takes norms in float32; attention wants q, k and v of one type
            qk = torch.cat((self.q_norm(q), self.k_norm(k)), dim=1).to(v.dtype)
        turned = rotate(qk, *(angle.to(qk.dtype) for angle in turn))
        q, k = torch.split(turned, [self.n_q, self.n_kv], dim=1)
        if cache is None:
            out = attend(q, k, v, documents, window=self.window)
        else:
            out = attend_cached(q, *cache.extend(self.layer, k, v), window=self.window)
        mixed: Tensor = self.o_proj(out.reshape(len(x_TC), -1))
        return mixed


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(a.hidden_size, 2 * a.intermediate_size, bias=False)
        self.down_proj = nn.Linear(a.intermediate_size, a.hidden_size, bias=False)

    def forward(self, x_TC: Tensor) -> Tensor:
        """Return down(silu(gate(x)) · up(x)), [T, C]."""
        gate, up = self.gate_up_proj(x_TC).chunk(2, dim=-1)
        out: Tensor = self.down_proj(functional.silu(gate) * up)
        return out


class Block(nn.Module):
    """Attention, then feed-forward, each added to what came in."""

    def __init__(self, a: Architecture, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        self.self_attn = Attention(a, layer)
        self.post_attention_layernorm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        self.mlp = FeedForward(a)

    def forward(self, x_TC: Tensor, turn: tuple[Tensor, Tensor], documents: Documents, cache: Cache | None) -> Tensor:
        """Return the residual stream after this block, [T, C]."""
        x_TC = x_TC + self.self_attn(self.input_layernorm(x_TC), turn, documents, cache)
        out: Tensor = x_TC + self.mlp(self.post_attention_layernorm(x_TC))
        return out


class Decoder(nn.Module):
    """Embedding, blocks, norm and head."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.embed_tokens = nn.Embedding(a.vocab_size, a.hidden_size)
        self.layers = nn.ModuleList(Block(a, layer) for layer in range(a.num_hidden_layers))
        self.norm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        self.lm_head = None if a.tie_word_embeddings else nn.Linear(a.hidden_size, a.vocab_size, bias=False)
        # no buffer: DistributedDataParallel would broadcast it, and ranks differ in how often they run forward
        self.frequencies = inverse_frequencies(a)

    @property
    def head_VC(self) -> Tensor:
        """Return the matrix that turns hidden states into logits."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def hidden(
        self, input_ids_T: Tensor, positions_T: Tensor, lengths: Sequence[int], cache: Cache | None = None
    ) -> Tensor:
        """Return the normalised states after the last block, [T, C]; `lengths` are those of the documents."""
        x_TC = self.embed_tokens(input_ids_T)
        if self.frequencies.device != x_TC.device:
            self.frequencies = self.frequencies.to(x_TC.device)
        turn = rotation(self.frequencies, positions_T, x_TC.dtype)
        # reading on from a cache needs no borders
        documents = Documents.of(lengths, torch.device("cpu") if cache is not None else x_TC.device)
        for block in self.layers:
            x_TC = block(x_TC, turn, documents, cache)
        out: Tensor = self.norm(x_TC)
        return out

    def forward(self, batch: Batch) -> Tensor:
        """Return the weighted sum of the cross-entropies of the supervised rows of `batch`."""
        hidden_TC = self.hidden(batch.input_ids_T, batch.positions_T, batch.lengths)
        hidden_SC = hidden_TC.index_select(0, batch.rows_S)
        return cross_entropy(hidden_SC, self.head_VC, batch.targets_S, batch.weights_S)

    def logits(self, input_ids_T: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the logits of every token, [T, V]; for looking and for tests, never for training."""
        positions_T = torch.cat([torch.arange(n, device=input_ids_T.device) for n in lengths])
        return functional.linear(self.hidden(input_ids_T, positions_T, lengths), self.head_VC)


def initialise(model: Decoder, *, seed: int) -> None:
    """Give every weight its random start: normal matrices, zero biases, unit norms. The same seed, the same model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.normal_(std=model.architecture.initializer_range, generator=generator)
