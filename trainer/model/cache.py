"""What a model has read, kept so that writing on needs no second reading: keys and values of several documents at once.

Shapes: T new tokens of a call, H query heads, K key/value heads, D head width, B documents, S places for tokens.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from trainer.model.attention import attend_cached

FEWEST_PLACES: Final = 128
"""Places for tokens that a document has at first; where they are too few, all documents get at least twice as many."""


class Cache:
    """Keys and values per layer and document.

    A call to the model reads on in every document, in their order, and may end with documents that are new. Those that
    read one token come first for speed: they are attended to together. Which documents lie beside each other changes
    a result by rounding at most.
    """

    def __init__(self, n_layers: int) -> None:
        self.lengths: list[int] = []
        """Tokens read of each document."""
        self._n_layers = n_layers
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._before: list[int] = []
        self._n_single = 0
        """Documents that read one token in this call; they come first."""
        self._seen_B11S: Tensor | None = None

    def remove(self, document: int) -> None:
        """Forget a document; the last one takes its place."""
        last = len(self.lengths) - 1
        if document != last:
            n = self.lengths[last]
            for buffer in (*self._keys, *self._values):
                buffer[document, :, :n] = buffer[last, :, :n]
            self.lengths[document] = n
        self.lengths.pop()

    def cut(self, document: int, n_tokens: int) -> None:
        """Forget all but the first `n_tokens` of a document."""
        self.lengths[document] = min(self.lengths[document], n_tokens)

    def attend(
        self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, lengths: Sequence[int], *, window: int | None
    ) -> Tensor:
        """Return causal attention of each document's new tokens to all of its own, [T, H, D], and keep the new ones.

        `lengths` are the new tokens of each document, `window` is how many tokens a token sees, itself included. Layers
        come in order: the first begins a call.
        """
        if layer == 0:
            self._begin(lengths, k_TKD, window)
        keys, values, n = self._keys[layer], self._values[layer], self._n_single
        out = []
        if n:
            keys[self._rows_B, :, self._places_B] = k_TKD[:n]
            values[self._rows_B, :, self._places_B] = v_TKD[:n]
            longest = max(self.lengths[:n])
            out.append(_attend_single(q_THD[:n], keys[:n, :, :longest], values[:n, :, :longest], self._seen_B11S))
        first = n
        for document in range(n, len(lengths)):
            end, known, total = first + lengths[document], self._before[document], self.lengths[document]
            keys[document, :, known:total] = k_TKD[first:end].transpose(0, 1)
            values[document, :, known:total] = v_TKD[first:end].transpose(0, 1)
            whole = (buffer[document, :, :total].transpose(0, 1) for buffer in (keys, values))
            out.append(attend_cached(q_THD[first:end], *whole, window=window))
            first = end
        return out[0] if len(out) == 1 else torch.cat(out)

    def _begin(self, lengths: Sequence[int], like: Tensor, window: int | None) -> None:
        """Count the new tokens as read, make room for them, and note where those that come alone go and what they see."""
        assert len(lengths) >= len(self.lengths), "a document that does not read on must be removed"
        self._before = self.lengths + [0] * (len(lengths) - len(self.lengths))
        self.lengths = [known + new for known, new in zip(self._before, lengths, strict=True)]
        self._make_room(len(lengths), max(self.lengths), like)
        reads_one = [known > 0 and new == 1 for known, new in zip(self._before, lengths, strict=True)]
        self._n_single = n = [*reads_one, False].index(False)
        self._rows_B = torch.arange(n, device=like.device)
        self._places_B = torch.tensor(self._before[:n], device=like.device)
        self._seen_B11S = _seen_by_last(self.lengths[:n], window, like.device)

    def _make_room(self, n_documents: int, n_tokens: int, like: Tensor) -> None:
        have = self._keys[0].shape if self._keys else (0, 0, 0, 0)
        if n_documents <= have[0] and n_tokens <= have[2]:
            return
        places = have[2] if n_tokens <= have[2] else max(n_tokens, 2 * have[2], FEWEST_PLACES)
        shape = (max(n_documents, have[0]), like.shape[1], places, like.shape[2])
        used = max(self._before)
        for buffers in (self._keys, self._values):
            # zeros, for what nobody has written yet is multiplied by a weight of 0
            grown = [like.new_zeros(shape) for _ in range(self._n_layers)]
            for new, old in zip(grown, buffers, strict=False):
                new[: have[0], :, :used] = old[:, :, :used]
            buffers[:] = grown


def _seen_by_last(lengths: Sequence[int], window: int | None, device: torch.device) -> Tensor | None:
    """Return which places the last token of each document sees, [B, 1, 1, S]; None: all up to the longest's end."""
    if not lengths or (min(lengths) == max(lengths) and (window is None or window >= max(lengths))):
        return None
    ends_B1, place_S = torch.tensor(lengths).unsqueeze(1), torch.arange(max(lengths))
    seen_BS = place_S < ends_B1
    if window is not None:
        seen_BS &= place_S >= ends_B1 - window
    return seen_BS[:, None, None].to(device)


def _attend_single(q_BHD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, seen_B11S: Tensor | None) -> Tensor:
    """Return the attention of one token of each document, [B, H, D].

    The query heads that share a key head stand beside each other as if they were tokens: no kernel needs to repeat it.
    """
    n, n_heads, width = q_BHD.shape
    grouped = q_BHD.reshape(n, k_BKSD.shape[1], -1, width)
    # on a CPU autocast would narrow what the caller has widened on purpose
    with torch.autocast("cpu", enabled=False):
        out = functional.scaled_dot_product_attention(grouped, k_BKSD, v_BKSD, attn_mask=seen_B11S)
    return out.reshape(n, n_heads, width)
