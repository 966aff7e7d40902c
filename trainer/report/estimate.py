"""How long a training will take and how much memory, before it begins; both are estimates and say so."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import nn

from trainer.data.packs import Packs
from trainer.job import Job
from trainer.model.architecture import Architecture
from trainer.model.decoder import Decoder
from trainer.model.lora import adapt, own_parameters
from trainer.plan import Schedule
from trainer.report.console import duration, said_bytes
from trainer.report.flops import count_work
from trainer.report.memory import Memory, Shape, trace
from trainer.report.meter import Yardstick, peak_resident
from trainer.step import Precision
from trainer.trainable import select
from trainer.world import World

EFFICIENCY: Final[Mapping[tuple[str, str], float]] = {
    ("cpu", "float32"): 0.7,
    ("cpu", "bfloat16"): 0.4,
    ("cuda", "bfloat16"): 0.5,
    ("cuda", "float32"): 0.5,
}
"""Share of the peak that training reaches. On a CPU, models of 3 × 192 and 6 × 512: 0.66 and 0.80 in float32, 0.29 and 0.47 in
bfloat16; not yet measured on a GPU."""
CPU_SLACK: Final = 1.25
"""On a CPU a process holds more than its tensors: what the C library keeps of what was freed, and the workspaces of products.
Measured growth was 0.99 to 1.29 times this estimate, in seven runs of models of 3 × 192 and 6 × 512."""


def prepared(job: Job, architecture: Architecture, precision: Precision) -> Decoder:
    """Return the model that `job` trains, with adapters and what learns, weights as they start; on meta or fake tensors only."""
    model = Decoder(architecture)
    adapt(model, job.lora, seed=job.seed)
    select(model, job.train.trainable)
    if precision.dtype == torch.bfloat16:
        for name, weight in own_parameters(model).items():
            if weight.dim() == 2 and not weight.requires_grad and not name.startswith("embed_"):
                owner, _, attribute = name.rpartition(".")
                narrow = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=False)
                setattr(model.get_submodule(owner), attribute, narrow)
    return model


def memory_row(job: Job, architecture: Architecture, packs: Packs, precision: Precision, world: World) -> str:
    """Return what the largest micro-batch of `packs` needs on a rank, with gradient checkpointing and without."""
    train = job.train
    largest = np.argsort(-packs.n_tokens, kind="stable")[: train.micro_batch]
    shape = Shape(
        n_tokens=int(packs.n_tokens[largest].sum()),
        n_rows=int(packs.n_supervised[largest].sum()),
        is_bfloat16=precision.dtype == torch.bfloat16,
        has_gradients=world.size > 1 or min(train.batch, len(packs)) > train.micro_batch,
        drops=bool(train.dropout or job.lora.dropout),
    )

    def needed(is_checkpointing: bool) -> Memory:
        def make() -> Decoder:
            model = prepared(job, architecture, precision)
            model.gradient_checkpointing = is_checkpointing
            return model

        ranks = world.size if train.shard_optimizer else 1
        return trace(make, shape, ranks_of_optimizer=ranks)

    chosen, other = needed(train.gradient_checkpointing), needed(not train.gradient_checkpointing)
    beside = ""
    if precision.device.type == "cpu":
        chosen, other = _on_cpu(chosen), _on_cpu(other)
        own = peak_resident()
        beside = "" if own is None else f", beside the {said_bytes(own)} of the program itself"
    word = "without" if train.gradient_checkpointing else "with"
    return (
        f"about {said_bytes(chosen.total)} a rank at peak (estimate){beside}: weights {said_bytes(chosen.weights)}, optimizer "
        f"{said_bytes(chosen.optimizer)}, activations, logits and gradients {said_bytes(chosen.passing)} for {shape.n_tokens:,} "
        f"tokens at once; {word} gradient_checkpointing about {said_bytes(other.total)}"
    )


def _on_cpu(memory: Memory) -> Memory:
    return replace(
        memory,
        weights=round(CPU_SLACK * memory.weights),
        optimizer=round(CPU_SLACK * memory.optimizer),
        passing=round(CPU_SLACK * memory.passing),
    )


def time_row(model: Decoder, packs: Packs, schedule: Schedule, precision: Precision, world: World) -> str:
    """Return how long all steps take, at a share of the device's speed in products of matrices that training usually reaches."""
    passes = schedule.epochs * (1 - schedule.left_out / len(packs))
    work = count_work(model).of_packs(packs, np.arange(len(packs))) * passes
    peak, source = Yardstick(precision.device, precision.dtype, n_devices=world.size).peak
    share = EFFICIENCY[precision.device.type, precision.name]
    seconds = work / (peak * world.size * share)
    per_s = float(packs.n_tokens.sum()) * passes / seconds
    return (
        f"about {duration(seconds)} (estimate), {per_s:,.0f} tok/s: {work:.3g} operations at {share:.0%} of {peak / 1e12:.3g} "
        f"TFLOP/s ({source}) × {world.size}; evaluation and samples come on top"
    )
