"""Low-rank adapters (LoRA, Hu et al. 2021): y = W x + b + alpha / rank · B A x, where W and b stay as they are.

A matrix that is fused in memory has an adapter for each of the parts that Hugging Face names; the products of all its parts are
two: one with their A below each other, one with their B down a diagonal. Shapes: T tokens, C inputs, O outputs of a matrix,
R the sum of its adapters' ranks.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.models import Lora
from schemas.settings import ConfigError
from trainer.model.decoder import Decoder
from trainer.model.dropout import ADAPTERS, drop
from trainer.model.linear import Linear
from trainer.model.names import compiled, near, outer_parts

ALL_LINEAR: Final = "all-linear"
THIRDS: Final = ("q_proj", "k_proj", "v_proj")
"""Names of the thirds of c_attn, which GPT-2 keeps as one matrix on disk, too."""
_SITES: Final = {"qkv_proj": 0, "o_proj": 1, "gate_up_proj": 2, "up_proj": 2, "down_proj": 3, "lm_head": 4}


@dataclass(frozen=True, order=True)
class Part:
    """Rows `start` to `stop` of a matrix, under the name that Hugging Face gives them (without .weight)."""

    start: int
    stop: int
    name: str

    @property
    def short(self) -> str:
        """Return the last word of the name."""
        return self.name.rpartition(".")[2]


class Adapted(Linear):
    """A matrix with adapters beside all or some of its rows; its own weight and bias keep their names."""

    def __init__(self, base: nn.Linear, parts: Sequence[Part], *, lora: Lora, site: int, seed: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.parts, self.site = tuple(parts), ADAPTERS + site
        # by themselves: compiled code that reads the whole name of a part, with its layer in it, fits that one layer
        self.spans = tuple((part.short, part.start, part.stop) for part in parts)
        self.rank, self.scale, self.dropout = lora.rank, lora.alpha / lora.rank, lora.dropout
        device = base.weight.device
        # pairs, not dictionaries, whose keys would be sorted: q comes before k
        self.lora_A = nn.ParameterDict([(p.short, _start(p, lora.rank, base.in_features, seed, device)) for p in parts])
        self.lora_B = nn.ParameterDict(
            [(p.short, nn.Parameter(torch.zeros(p.stop - p.start, lora.rank, device=device))) for p in parts]
        )

    def forward(self, x_TC: Tensor, keys_T: Tensor | None = None) -> Tensor:
        """Return the product with each row of `x_TC`, adapters included; `keys_T` say what of their input is left out."""
        out_TO = functional.linear(x_TC, self.weight, self.bias)
        low_TR, b_OR = self.low_rank(x_TC, keys_T)
        # into the product itself: a sum of two would be read and written once more
        return out_TO.addmm_(low_TR.to(out_TO.dtype), b_OR.to(out_TO.dtype).T)

    def low_rank(self, x_TC: Tensor, keys_T: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return u [T, R] and B [O, R]: what the adapters add is u Bᵀ."""
        dropped_TC = drop(x_TC, keys_T, self.site, self.dropout)
        return functional.linear(dropped_TC, self.a_RC()) * self.scale, self.b_OR()

    def a_RC(self) -> Tensor:
        """Return every A, one below the other."""
        return torch.cat([self.lora_A[short] for short, _, _ in self.spans])

    def b_OR(self) -> Tensor:
        """Return every B in the rows of its part and the columns of its A; zeros elsewhere."""
        pieces: list[Tensor] = []
        end = 0
        for short, start, stop in self.spans:
            b: Tensor = self.lora_B[short]
            if len(b) == self.out_features:
                return b
            pieces += [b.new_zeros(start - end, 0), b]
            end = stop
        diagonal: Tensor = torch.block_diag(*pieces, pieces[-1].new_zeros(self.out_features - end, 0))  # type: ignore[no-untyped-call]
        return diagonal

    @torch.no_grad()
    def merged(self) -> Tensor:
        """Return the matrix with its adapters added in, in at least float32."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        return self.weight.to(wide) + self.scale * (self.b_OR() @ self.a_RC())


def adapt(model: Decoder, lora: Lora, *, seed: int) -> None:
    """Put adapters beside the matrices of `model` that `lora` targets; what it computes stays the same, for each B is 0.

    Each A is drawn from a generator of its own, seeded with `seed` and its name. Raises ConfigError for a target that
    matches nothing, and for the head of a model whose head is its embedding.
    """
    if lora.rank == 0:
        return
    parts = _parts(model)
    for module_name, chosen in _chosen(model, lora, parts).items():
        parent, _, attribute = module_name.rpartition(".")
        base = model.get_submodule(module_name)
        assert isinstance(base, nn.Linear)
        adapted = Adapted(base, chosen, lora=lora, site=_SITES[attribute], seed=seed)
        setattr(model.get_submodule(parent), attribute, adapted)


def adapted_modules(model: Decoder) -> Iterator[tuple[str, Adapted]]:
    """Yield the matrices that have adapters, by the name Decoder gives them."""
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            yield name, module


def outer_names(model: Decoder) -> dict[str, dict[str, int]]:
    """Return, for every parameter, Hugging Face's names of it or of its parts, each with the number of its values.

    An adapter's are its matrix' name and .lora_A.weight or .lora_B.weight.
    """
    names = {name: outer_parts(name, tensor, model.architecture) for name, tensor in own_parameters(model).items()}
    for name, tensor in adapter_tensors(model).items():
        names[name] = {tensor[0]: tensor[1].numel()}
    return names


def own_parameters(model: Decoder) -> dict[str, nn.Parameter]:
    """Return the model's own parameters, without those of adapters."""
    return {name: parameter for name, parameter in model.named_parameters() if not is_adapter(name)}


def is_adapter(name: str) -> bool:
    """Tell whether a parameter of that name belongs to an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def adapter_tensors(model: Decoder) -> dict[str, tuple[str, nn.Parameter]]:
    """Return the parameters of the adapters by name, each with the name that others know it by."""
    return {
        f"{name}.{side}.{part.short}": (f"{part.name}.{side}.weight", getattr(module, side)[part.short])
        for name, module in adapted_modules(model)
        for part in module.parts
        for side in ("lora_A", "lora_B")
    }


def merged_tensors(model: Decoder) -> Iterator[tuple[str, Tensor]]:
    """Yield the model's own weights by name, the adapters added into theirs in float32; nothing in `model` changes."""
    adapted = {f"{name}.weight": module for name, module in adapted_modules(model)}
    for name, parameter in own_parameters(model).items():
        yield name, adapted[name].merged() if name in adapted else parameter.detach()


def _start(part: Part, rank: int, n_inputs: int, seed: int, device: torch.device) -> nn.Parameter:
    """Return an A: uniform within 1 / sqrt(inputs), which is Kaiming's bound for a slope of sqrt 5 (as in PEFT)."""
    a_RC = torch.empty(rank, n_inputs, device=device)
    if device.type != "meta":
        # by name: the same start whatever else is adapted, and in whatever order
        digest = hashlib.sha256(f"{seed}:{part.name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        bound = 1 / math.sqrt(n_inputs)
        a_RC.copy_(torch.empty(rank, n_inputs).uniform_(-bound, bound, generator=generator))
    return nn.Parameter(a_RC)


def _parts(model: Decoder) -> dict[str, list[Part]]:
    """Return the parts that each matrix can have adapters for, by its name."""
    parts: dict[str, list[Part]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        if isinstance(module, Adapted):
            raise ValueError(f"{name} has adapters already")
        start, own = 0, list[Part]()
        for outer, n_values in outer_parts(f"{name}.weight", module.weight, model.architecture).items():
            stop = start + n_values // module.in_features
            own.append(Part(start, stop, outer.removesuffix(".weight")))
            start = stop
        parts[name] = own
    return parts


def _thirds(name: str, parts: Sequence[Part]) -> list[Part]:
    """Return the thirds of a c_attn; none of any other matrix."""
    if not name.endswith(".qkv_proj") or len(parts) > 1:
        return []
    whole = parts[0]
    width, stem = whole.stop // 3, whole.name.rpartition(".")[0]
    return [Part(i * width, (i + 1) * width, f"{stem}.{short}") for i, short in enumerate(THIRDS)]


def _chosen(model: Decoder, lora: Lora, parts: Mapping[str, list[Part]]) -> dict[str, list[Part]]:
    chosen: dict[str, set[Part]] = {}
    for target in lora.targets:
        for name, matched in _found(model, target, parts).items():
            chosen.setdefault(name, set()).update(matched)
    for name, own in chosen.items():
        if len(parts[name]) == 1 and parts[name][0] in own and len(own) > 1:
            shorts = ", ".join(part.short for part in sorted(own))
            raise ConfigError(
                f"[lora] targets: {shorts} of {parts[name][0].name} would each get an adapter, and they overlap; name either "
                f"{parts[name][0].short}, or thirds of it"
            )
    return {name: sorted(own) for name, own in chosen.items()}


def _found(model: Decoder, target: str, parts: Mapping[str, list[Part]]) -> dict[str, list[Part]]:
    """Return the parts that one target matches: a whole c_attn or, only where its name does not match, its thirds."""
    if target == ALL_LINEAR:
        return {name: own for name, own in parts.items() if name != "lm_head"}
    search = compiled(target, where="[lora] targets").search
    if model.lm_head is None and search("lm_head"):
        raise ConfigError(
            f"[lora] targets: {target!r} matches lm_head, which is the embedding table of this model (tie_word_embeddings), so "
            "that an adapter merged into it would change what goes in as well. Leave the head out, or train a model whose head "
            "is untied"
        )
    found: dict[str, list[Part]] = {}
    for name, own in parts.items():
        matched = [part for part in own if search(part.name) or search(f"{part.name}.weight")]
        matched = matched or [part for part in _thirds(name, own) if search(part.name)]
        if matched:
            found[name] = matched
    if not found:
        known = {name: [p.name for p in (*own, *_thirds(name, own))] for name, own in parts.items()}
        raise ConfigError(f"[lora] targets: {target!r} matches no matrix; {near(target, known, [ALL_LINEAR])}")
    return found
