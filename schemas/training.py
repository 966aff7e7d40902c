"""The two sections that the trainer reads: [model], what is trained, and [train], how."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]

Unit = Annotated[float, Meta(gt=0.0, le=1.0)]
RopeBase = Annotated[float, Meta(gt=0.0, le=1e12)]
Stretch = Annotated[float, Meta(gt=0.0, le=1e6)]


class RopeScaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the frequencies of rotary positions are stretched, under Hugging Face's names."""

    rope_type: Literal["linear", "llama3"]
    """linear divides every frequency by factor (Chen et al. 2023); llama3 only the low ones."""
    factor: Stretch
    """How many times longer than the original the context becomes."""
    low_freq_factor: Stretch | None = None
    """llama3: wavelengths above original / this are stretched in full."""
    high_freq_factor: Stretch | None = None
    """llama3: wavelengths below original / this are left alone."""
    original_max_position_embeddings: Positive | None = None
    """llama3: the context length before the stretch."""

    def __post_init__(self) -> None:
        """Refuse values that no frequencies follow from."""
        needed = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        if self.rope_type != "llama3":
            return
        if absent := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"rope_type 'llama3' needs {', '.join(absent)}")
        low, high = self.low_freq_factor, self.high_freq_factor
        if low is not None and high is not None and low >= high:
            raise ValueError(f"low_freq_factor {low} must be below high_freq_factor {high}")


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is trained: a Hugging Face directory, or the sizes of a new model under their Hugging Face names."""

    path: str | None = None
    """Directory with config.json and *.safetensors to start from; all sizes then come from it."""
    model_type: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    """Family of a new model. qwen2 adds a bias to q, k and v; qwen3 normalises q and k per head."""
    hidden_size: Annotated[int, Meta(ge=8, le=65_536)] = 192
    """Width of the residual stream."""
    intermediate_size: Annotated[int, Meta(ge=8, le=262_144)] | None = None
    """Width inside the feed-forward block; by default 8/3 of hidden_size, rounded up to a multiple of 64."""
    num_hidden_layers: Annotated[int, Meta(ge=1, le=512)] = 3
    """Blocks of attention and feed-forward."""
    num_attention_heads: Annotated[int, Meta(ge=1, le=512)] = 6
    """Query heads."""
    num_key_value_heads: Annotated[int, Meta(ge=1, le=512)] | None = None
    """Key and value heads, a divisor of num_attention_heads; by default the same number."""
    head_dim: Annotated[int, Meta(ge=2, le=1024, multiple_of=2)] | None = None
    """Width of a head; by default hidden_size / num_attention_heads."""
    rope_theta: RopeBase = 10_000.0
    """Base of the rotary position frequencies."""
    rope_scaling: RopeScaling | None = None
    """How frequencies are stretched, as in a Hugging Face config: {rope_type = "linear" | "llama3", factor = ...}."""
    max_position_embeddings: Positive = 4096
    """Longest conversation the model is made for, in tokens."""
    rms_norm_eps: Unit = 1e-6
    """Added to the mean square before its root is taken."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding table."""
    initializer_range: Unit = 0.02
    """Standard deviation of a new model's weights."""

    def __post_init__(self) -> None:
        """Refuse sizes that contradict each other."""
        if self.path is not None:
            default = Model()
            clash = [name for name in self.__struct_fields__ if getattr(self, name) != getattr(default, name)]
            clash.remove("path")
            if clash:
                raise ValueError(
                    f"path and {', '.join(clash)} are both set; a model at a path has its own sizes: drop one"
                )
            return
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}; "
                "change one, or set head_dim"
            )
        if self.head_dim is None and self.hidden_size // self.num_attention_heads % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} / num_attention_heads {self.num_attention_heads} is odd; "
                "rotary positions need an even head width"
            )
        n_kv = self.num_key_value_heads
        if n_kv is not None and self.num_attention_heads % n_kv:
            raise ValueError(
                f"num_key_value_heads {n_kv} does not divide num_attention_heads {self.num_attention_heads}"
            )


class Train(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model is trained. A step is one update of the weights; a pack is one row of the packed shards."""

    epochs: Positive | None = None
    """Passes over the training packs; 1 when neither epochs nor steps is set."""
    steps: Positive | None = None
    """Updates of the weights; instead of epochs."""
    batch: Annotated[int, Meta(ge=1, le=1_048_576)] = 8
    """Packs per step, over all ranks and micro-batches."""
    micro_batch: Annotated[int, Meta(ge=1, le=65_536)] = 1
    """Packs per forward pass on one rank; changes memory and speed, never the result."""
    lr: Annotated[float, Meta(gt=0.0, le=1e9)] = 2e-5
    """Highest learning rate."""
    min_lr_ratio: Fraction = 0.1
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
    eval_every: Count = 50
    """Steps between validation losses; 0: only before and after training."""
    checkpoint_every: Count = 100
    """Steps between checkpoints; 0: only at the end and on a signal."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that are kept."""
    log_every: Positive = 1
    """Steps between lines of metrics.jsonl."""
    n_samples: Count = 3
    """Held-out prompts that are answered before and after training."""
    max_new_tokens: Positive = 64
    """Longest sample, in tokens."""
    temperature: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0
    """Randomness of the samples; 0 takes the likeliest token."""
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
