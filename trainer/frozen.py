"""Weights that do not learn: proof of which they are, half the memory for them, and their return to the last bit."""

import hashlib
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainer.model.decoder import Decoder
from trainer.model.lora import own_parameters

TIE = 2**15
"""Half of the last place that bfloat16 keeps, in places of float32."""
PIECE = 2**18
"""Values that are narrowed at a time."""


@dataclass
class Rest:
    """What rounding a float32 tensor to bfloat16 took away, in units of its last place: 16 bits a value, on the host."""

    places: Tensor
    ties: Tensor
    """Where a value lay halfway and was rounded down, which 16 bits cannot tell from halfway and up."""


@dataclass
class Narrowed:
    """Weights that are kept in bfloat16 while they do not learn."""

    names: list[str] = field(default_factory=list)
    rests: dict[str, Rest] = field(default_factory=dict)
    """Of those that bfloat16 does not hold exactly; a model that was stored in it has none."""


def fingerprint(model: Decoder) -> str:
    """Return a hash of the bits of all parameters that do not learn; "" when there are none.

    It is of names, shapes, and the sums, modulo 2^64, of the rows and of the columns of each tensor taken as integers: at the
    speed of memory, and any one value that differs shows. To be taken before `narrow`.
    """
    digest = hashlib.sha256()
    frozen = {name: parameter for name, parameter in own_parameters(model).items() if not parameter.requires_grad}
    for name, parameter in sorted(frozen.items()):
        digest.update(f"{name}:{tuple(parameter.shape)}:{parameter.dtype};".encode())
        rows = _as_integers(parameter.detach())
        for axis in (0, 1):
            digest.update(rows.sum(axis, dtype=torch.int64).cpu().numpy().tobytes())
    return digest.hexdigest() if frozen else ""


def narrow(model: Decoder, dtype: torch.dtype) -> Narrowed:
    """Keep the matrices that do not learn in bfloat16, where products are taken in it: what is computed stays the same.

    Autocast would round each to the same bits in every forward pass. Embeddings, which it does not round, stay as they are
    unless bfloat16 holds them exactly. Nothing happens for another `dtype`.
    """
    done = Narrowed()
    if dtype != torch.bfloat16:
        return done
    tables = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    for name, parameter in own_parameters(model).items():
        if parameter.requires_grad or parameter.dim() < 2 or parameter.dtype != torch.float32:
            continue
        close, rest = _narrowed(parameter.detach())
        if rest is not None:
            if name in tables:
                continue
            done.rests[name] = rest
        done.names.append(name)
        parameter.data = close
    return done


def widen(model: Decoder, narrowed: Narrowed) -> None:
    """Give the weights that `narrow` rounded their float32 values back, bit for bit."""
    parameters = dict(model.named_parameters())
    for name in narrowed.names:
        parameter = parameters[name]
        rest = narrowed.rests.get(name)
        close = parameter.detach()
        parameter.data = close.float() if rest is None else _restored(close, rest)
    narrowed.names, narrowed.rests = [], {}


def _as_integers(x: Tensor) -> Tensor:
    """Return the bits of `x` as rows of integers: of 64 bits where two values fit, for they are summed 30 times as fast."""
    rows = x.contiguous().view(len(x), -1) if x.dim() > 1 else x.contiguous().view(1, -1)
    if rows.element_size() == 8 or (rows.element_size() == 4 and rows.shape[1] % 2 == 0):
        return rows.view(torch.int64)
    return rows.view(torch.int32 if rows.element_size() == 4 else torch.int16)


def _narrowed(wide: Tensor) -> tuple[Tensor, Rest | None]:
    """Return a float32 tensor in bfloat16, and what that took away, None if nothing."""
    close = torch.empty(wide.shape, dtype=torch.bfloat16, device=wide.device)
    places: Tensor | None = None
    ties = [torch.empty(0, dtype=torch.int64)]
    source, target = wide.contiguous().view(-1), close.view(-1)
    # by pieces that stay in a CPU's cache: fresh memory for every step of it costs several times as much
    for start in range(0, len(source), PIECE):
        piece = slice(start, start + PIECE)
        target[piece] = source[piece]
        difference = source[piece].view(torch.int32) - target[piece].float().view(torch.int32)
        if not difference.any():
            continue
        if places is None:
            places = torch.zeros(len(source), dtype=torch.int16)
        places[piece] = difference.to(torch.int16)
        ties.append((difference == TIE).nonzero()[:, 0].cpu() + start)
    return close, None if places is None else Rest(places.view(wide.shape), torch.cat(ties))


def _restored(close: Tensor, rest: Rest) -> Tensor:
    wide = torch.empty(close.shape, dtype=torch.float32, device=close.device)
    bits, source, places = wide.view(-1).view(torch.int32), close.contiguous().view(-1), rest.places.view(-1)
    for start in range(0, len(bits), PIECE):
        piece = slice(start, start + PIECE)
        bits[piece] = source[piece].float().view(torch.int32) + places[piece].to(close.device)
    # halfway and down was stored as halfway and up, one place of bfloat16 below
    bits[rest.ties.to(close.device)] += 2 * TIE
    return wide
