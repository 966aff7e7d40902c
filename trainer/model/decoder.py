"""A decoder over one-dimensional packed tokens: the Llama family, and GPT-2.

Shapes: T tokens of a batch, C hidden, S supervised rows, V vocabulary.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.errors import ModelError
from trainer.loss import Loss, LowRank, cross_entropy, row_losses
from trainer.model.architecture import Architecture
from trainer.model.attention import Documents
from trainer.model.block import Block, Turn
from trainer.model.cache import Cache
from trainer.model.dropout import EMBEDDING, drop, keys_of_layer
from trainer.model.linear import Linear
from trainer.model.norms import make_norm
from trainer.model.rope import inverse_frequencies, rotation

ROWS: Final = 64
"""Trained rows are computed in multiples of so many, for a CPU prepares a bfloat16 product anew for each size it has not seen."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Documents laid end to end, and the rows among them that are trained.

    `rows_S` are indices of tokens whose successor, in the same document, is `targets_S` with weight `weights_S`.
    `dropout_keys_T` are those of trainer.model.dropout, where something is to be left out.
    """

    input_ids_T: Tensor
    positions_T: Tensor
    lengths: tuple[int, ...]
    rows_S: Tensor
    targets_S: Tensor
    weights_S: Tensor
    dropout_keys_T: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on `device`."""
        keys_T = self.dropout_keys_T
        return Batch(
            input_ids_T=self.input_ids_T.to(device, non_blocking=True),
            positions_T=self.positions_T.to(device, non_blocking=True),
            lengths=self.lengths,
            rows_S=self.rows_S.to(device, non_blocking=True),
            targets_S=self.targets_S.to(device, non_blocking=True),
            weights_S=self.weights_S.to(device, non_blocking=True),
            dropout_keys_T=None if keys_T is None else keys_T.to(device, non_blocking=True),
        )


class Decoder(nn.Module):
    """Embedding, blocks, norm and head.

    `dropout` is the share of the embedding's and of each branch's output that is left out of a batch that has keys for it.
    With `gradient_checkpointing` only what goes into a block is kept for the backward pass, which computes the rest again.
    `is_compiled` says that trainer.compiled has compiled the blocks.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.embed_tokens = nn.Embedding(a.vocab_size, a.hidden_size)
        self.embed_positions = nn.Embedding(a.max_position_embeddings, a.hidden_size) if a.learned_positions else None
        self.layers = nn.ModuleList(Block(a, layer) for layer in range(a.num_hidden_layers))
        self.norm = make_norm(a)
        self.lm_head = None if a.tie_word_embeddings else Linear(a.hidden_size, a.vocab_size, bias=False)
        # no buffer: DistributedDataParallel would broadcast it, and ranks differ in how often they run forward
        self.frequencies = inverse_frequencies(a)
        self.dropout = 0.0
        self.gradient_checkpointing = False
        self.is_compiled = False

    @property
    def head_VC(self) -> Tensor:
        """Return the matrix that turns hidden states into logits, without its adapters, if it has any."""
        return self.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def head(self, hidden_TC: Tensor) -> Tensor:
        """Return the logits of each row of `hidden_TC`, [T, V]."""
        if self.lm_head is None:
            return functional.linear(hidden_TC, self.embed_tokens.weight)
        logits_TV: Tensor = self.lm_head(hidden_TC)
        return logits_TV

    def hidden(
        self,
        input_ids_T: Tensor,
        positions_T: Tensor,
        lengths: Sequence[int],
        cache: Cache | None = None,
        *,
        dropout_keys_T: Tensor | None = None,
        rows_S: Tensor | None = None,
    ) -> Tensor:
        """Return the normalised states after the last block, [T, C], or [S, C], those of the tokens at `rows_S` alone.

        `lengths` are those of the documents.

        Raises ModelError for a document that is longer than the positions which the model has learned.
        """
        self._check_positions(lengths, cache)
        keys_T = dropout_keys_T
        x_TC = drop(self._embedded(input_ids_T, positions_T), keys_T, EMBEDDING, self.dropout)
        turn = self._turn(positions_T, x_TC)
        # reading on from a cache needs no borders
        documents = Documents.of(lengths, torch.device("cpu") if cache is not None else x_TC.device)
        for i, block in enumerate(self.layers):
            own_T = None if keys_T is None else keys_of_layer(keys_T, i)
            # what follows the last attention, no other token sees; compiled code would be that of one number of rows
            is_short = i == len(self.layers) - 1 and not self.is_compiled
            x_TC = self._through(block, x_TC, turn, documents, cache, own_T, rows_S if is_short else None)
        if rows_S is not None and self.is_compiled:
            x_TC = x_TC.index_select(0, rows_S)
        out: Tensor = self.norm(x_TC)
        return out

    def _through(
        self,
        block: nn.Module,
        x_TC: Tensor,
        turn: Turn | None,
        documents: Documents,
        cache: Cache | None,
        keys_T: Tensor | None,
        rows_S: Tensor | None,
    ) -> Tensor:
        inputs = (x_TC, turn, documents, cache, keys_T, self.dropout, rows_S)
        if cache is not None:
            out: Tensor = block.forward(*inputs)  # not as compiled: every token read on has a shape of its own
        elif self.gradient_checkpointing and torch.is_grad_enabled():
            # no state of generators is kept, because a block draws nothing: what dropout leaves out follows from its keys
            out = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            out = block(*inputs)
        return out

    def _check_positions(self, lengths: Sequence[int], cache: Cache | None) -> None:
        # before the kernels: on CUDA an index out of range ends the process
        if self.embed_positions is None:
            return
        known = cache.lengths if cache is not None else []
        longest = max(n + before for n, before in itertools.zip_longest(lengths, known, fillvalue=0))
        if longest > (n_positions := self.architecture.max_position_embeddings):
            raise ModelError(
                f"a conversation of {longest} tokens: this model has learned {n_positions} positions "
                "(max_position_embeddings) and cannot read further; shorten it, or take a model with more positions"
            )

    def _embedded(self, input_ids_T: Tensor, positions_T: Tensor) -> Tensor:
        # a table that does not learn may be kept in bfloat16; what flows from block to block is as wide as the norms
        x_TC: Tensor = self.embed_tokens(input_ids_T).to(self.norm.weight.dtype)
        return x_TC if self.embed_positions is None else x_TC + self.embed_positions(positions_T)

    def _turn(self, positions_T: Tensor, x_TC: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.embed_positions is not None:
            return None
        if self.frequencies.device != x_TC.device:
            self.frequencies = self.frequencies.to(x_TC.device)
        return rotation(self.frequencies, positions_T, x_TC.dtype)

    def forward(self, batch: Batch, z_loss: float = 0.0) -> Loss:
        """Return the weighted sums over the supervised rows of `batch` that trainer.loss.cross_entropy describes."""
        batch = _evened(batch)
        hidden_SC = self._supervised(batch)
        low_rank = self._low_rank(hidden_SC, batch)
        return cross_entropy(
            hidden_SC, self.head_VC, batch.targets_S, batch.weights_S, z_loss=z_loss, low_rank=low_rank
        )

    @torch.no_grad()
    def row_losses(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of every supervised row of `batch`, unweighted, [S]; for measuring, without gradient."""
        n, batch = len(batch.rows_S), _evened(batch)
        hidden_SC = self._supervised(batch)
        return row_losses(hidden_SC, self.head_VC, batch.targets_S, self._low_rank(hidden_SC, batch))[:n]

    def _low_rank(self, hidden_SC: Tensor, batch: Batch) -> LowRank | None:
        """Return what the head's adapter, if it has one, adds to the logits of the supervised rows, as two factors."""
        if self.lm_head is None:
            return None
        keys_T = batch.dropout_keys_T
        return self.lm_head.low_rank(hidden_SC, None if keys_T is None else keys_T.index_select(0, batch.rows_S))

    def _supervised(self, batch: Batch) -> Tensor:
        return self.hidden(
            batch.input_ids_T,
            batch.positions_T,
            batch.lengths,
            dropout_keys_T=batch.dropout_keys_T,
            rows_S=batch.rows_S,
        )

    def logits(self, input_ids_T: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return the logits of every token, [T, V]; for looking and for tests, never for training."""
        positions_T = torch.cat([torch.arange(n, device=input_ids_T.device) for n in lengths])
        return self.head(self.hidden(input_ids_T, positions_T, lengths))


def _evened(batch: Batch) -> Batch:
    """Return `batch` with its last row repeated, without weight, until there are a multiple of ROWS."""
    n_more = -len(batch.rows_S) % ROWS
    if not n_more:
        return batch
    return replace(
        batch,
        rows_S=torch.cat((batch.rows_S, batch.rows_S[-1:].expand(n_more))),
        targets_S=torch.cat((batch.targets_S, batch.targets_S[-1:].expand(n_more))),
        weights_S=functional.pad(batch.weights_S, (0, n_more)),
    )


def untie(model: Decoder) -> None:
    """Give a model whose head is its embedding table a head of its own, which starts as a copy; another stays as it is."""
    if model.lm_head is not None:
        return
    table = model.embed_tokens.weight
    model.architecture = msgspec.structs.replace(model.architecture, tie_word_embeddings=False)
    with torch.device("meta"):
        model.lm_head = Linear(table.shape[1], table.shape[0], bias=False)
    model.lm_head.weight = nn.Parameter(table.detach().clone())


def initialise(model: Decoder, *, seed: int) -> None:
    """Give every weight its random start: normal matrices, zero biases, unit norms. The same seed, the same model.

    In a GPT-2 model the matrices whose products are added to the residual stream start smaller by the root of how many of
    them there are (Radford et al. 2019).
    """
    a = model.architecture
    residual = 1 / math.sqrt(2 * a.num_hidden_layers) if a.model_type == "gpt2" else 1.0
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                is_residual = name.endswith((".o_proj.weight", ".down_proj.weight"))
                std = a.initializer_range * (residual if is_residual else 1.0)
                parameter.normal_(std=std, generator=generator)
