"""The section [train]: how a model is trained."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.models import Count, Fraction, Positive, Share, Unit

Trainable = str | tuple[str, ...]
Scale = Annotated[float, Meta(ge=0.0, le=1e6)]
LEAST: Final = 0.1
"""Share of the learning rate that is left where nothing is said."""
Epochs = Annotated[int, Meta(ge=1, le=1_000_000)]
Steps = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Weights that are trained otherwise than the rest."""

    pattern: str
    """Regular expression, searched in the Hugging Face names of the weights; the first group that matches counts."""
    lr_scale: Scale = 1.0
    """Factor on the learning rate."""
    weight_decay: Scale | None = None
    """Decay, instead of that of [train]."""


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several trainings that follow each other, each from the weights of the one before; what is not set is [train]'s."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)")]
    """Its directory in RUN/train/phases."""
    run: str | None = None
    """Finished run whose packs are trained; by default the config's own. It must have the same tokenizer."""
    epochs: Epochs | None = None
    steps: Steps | None = None
    batch: Annotated[int, Meta(ge=1, le=1_048_576)] | None = None
    lr: Annotated[float, Meta(gt=0.0, le=1e9)] | None = None
    min_lr_ratio: Fraction | None = None
    schedule: Literal["constant", "linear", "cosine"] | None = None
    warmup_steps: Count | None = None
    warmup_ratio: Fraction | None = None
    order: Literal["shuffle", "as_built", "short_first"] | None = None
    trainable: Trainable | None = None
    """Weights that learn in this phase; with adapters, besides them."""
    lora: bool = True
    """Whether the adapters of [lora] are trained in it, where there are any; false: the model's own weights."""


class Train(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model is trained. A step is one update of the weights; a pack is one row of the packed shards."""

    epochs: Epochs | None = None
    """Passes over the training packs; 1 when neither epochs nor steps is set."""
    steps: Steps | None = None
    """Updates of the weights; instead of epochs."""
    phases: tuple[Phase, ...] = ()
    """Several trainings one after the other, e.g. [[train.phases]] name = "easy", run = "runs/easy", steps = 500."""
    batch: Annotated[int, Meta(ge=1, le=1_048_576)] = 8
    """Packs per step, over all ranks and micro-batches."""
    micro_batch: Annotated[int, Meta(ge=1, le=65_536)] = 1
    """Packs per forward pass on one rank; changes memory and speed, never the result."""
    order: Literal["shuffle", "as_built", "short_first"] = "shuffle"
    """Order of the packs in an epoch: anew at random in each, as they lie in the shards, or by their longest conversation, short
    ones first. Conversations stay in their packs."""
    drop_last: bool = False
    """Leave out the packs at the end of an epoch that would not fill a step; with order "shuffle" others in each. By default the
    last step of an epoch is a short one, and nothing is left out."""
    trainable: Trainable | None = None
    """Weights that learn: all, last_block and last_<n>_blocks (with the last norm), head, norms, biases, or regular expressions
    searched in their Hugging Face names; several in a list. By default all, and with [lora] none but the adapters."""
    groups: tuple[Group, ...] = ()
    """Weights with a learning rate or decay of their own, e.g. [[train.groups]] pattern = "lm_head", lr_scale = 0.1."""
    loss_mean: Literal["token", "sample", "sqrt"] = "token"
    """What weighs the same in a step: each trained token, each conversation, or between the two, each conversation as the root
    of its trained weight. However conversations are packed, the result is the same. Validation always weighs tokens alike."""
    z_loss: Scale = 0.0
    """Factor on the squared logarithm of the softmax's denominator, added to each trained token's loss."""
    dropout: Share = 0.0
    """Share of the embedding's and of each branch's output that is left out, drawn anew for every token."""
    lr: Annotated[float, Meta(gt=0.0, le=1e9)] = 2e-5
    """Highest learning rate."""
    min_lr_ratio: Fraction = LEAST
    """Share of lr that is left at the end of the schedule."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate goes from lr to its end after the warm-up."""
    warmup_steps: Count | None = None
    """Steps over which the learning rate rises from 0; 0 when neither warmup_steps nor warmup_ratio is set."""
    warmup_ratio: Fraction | None = None
    """The same as a share of all steps; instead of warmup_steps."""
    weight_decay: Annotated[float, Meta(ge=0.0, le=1e3)] = 0.0
    """Decoupled decay of the matrices; norms and biases have none."""
    beta1: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.9
    """Decay of AdamW's mean of gradients."""
    beta2: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.95
    """Decay of AdamW's mean of squared gradients."""
    eps: Unit = 1e-8
    """Added to the root of AdamW's mean of squared gradients."""
    clip: Annotated[float, Meta(gt=0.0)] = 1.0
    """Largest norm of the gradient of a step; a longer one is scaled down. Write inf for no clipping."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of matrix products; weights stay float32. auto: bfloat16 where the hardware multiplies it natively."""
    gradient_checkpointing: bool = False
    """Keep only what goes into a block and compute the rest again in the backward pass: less memory, a third more work."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of each block; auto: on a GPU."""
    shard_optimizer: bool = False
    """Each rank keeps the optimizer's state of its own share of the weights only (ZeRO, stage 1)."""
    eval_every: Count = 50
    """Steps between validation losses; 0: only before and after training."""
    eval_tag: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """Kind of tags by which the validation loss is told apart, besides files: "domain" for tags domain:<name>, "*" for all tags.
    A conversation counts for each of its tags of the kind; those without one are "other"."""
    checkpoint_every: Count = 100
    """Steps between checkpoints; 0: only at the end and on a signal."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that are kept."""
    log_every: Positive = 1
    """Steps between lines of metrics.jsonl."""
    keep_best: bool = True
    """Keep the checkpoint of the lowest validation loss besides."""
    n_samples: Count = 3
    """Held-out prompts that are answered before training and whenever the validation loss is measured; [generation] says how."""
    track: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = ()
    """Where metrics go besides metrics.jsonl; each needs its package, e.g. pip install 'chatloom[track]'."""
    export_weights: Literal["last", "best"] = "last"
    """Which weights are exported: those after the last step, or those of the lowest validation loss."""
    export_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the exported weights."""
    export_unless_stopping: bool = False
    """Export even a model whose answers do not end on a stop token."""

    def __post_init__(self) -> None:
        """Refuse two answers to one question."""
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs = {self.epochs} and steps = {self.steps} are both set; drop one")
        if self.warmup_steps is not None and self.warmup_ratio is not None:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} and warmup_ratio = {self.warmup_ratio} are both set; drop one"
            )
        if self.export_weights == "best" and not self.keep_best:
            raise ValueError('export_weights = "best" and keep_best = false: the best weights would be gone; drop one')
        if self.export_weights == "best" and self.eval_every == 0:
            raise ValueError(
                'export_weights = "best" and eval_every = 0: nothing is measured between the first step and the last, so that '
                "the best are the last; set eval_every, or drop export_weights"
            )
        if self.schedule == "constant" and self.min_lr_ratio != LEAST:
            raise ValueError(
                f'min_lr_ratio = {self.min_lr_ratio} does nothing with schedule = "constant", which stays at lr; drop one'
            )
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phases have the names {', '.join(names)}; each needs one of its own")
