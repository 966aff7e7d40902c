"""The two sections that say what is trained: [model], and [lora], small matrices beside those of a model."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Share = Annotated[float, Meta(ge=0.0, lt=1.0)]

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
            if idle := [name for name in needed if getattr(self, name) is not None]:
                raise ValueError(
                    f"{', '.join(idle)}: only rope_type 'llama3' goes by them, not {self.rope_type!r}; drop them"
                )
            return
        if absent := [name for name in needed if getattr(self, name) is None]:
            raise ValueError(f"rope_type 'llama3' needs {', '.join(absent)}")
        low, high = self.low_freq_factor, self.high_freq_factor
        if low is not None and high is not None and low >= high:
            raise ValueError(f"low_freq_factor {low} must be below high_freq_factor {high}")


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is trained: a Hugging Face directory, or the sizes of a new model under their Hugging Face names."""

    path: str | None = None
    """Directory with config.json and *.safetensors to start from, or a model's name on the hub; all sizes then come from it."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; by default its main branch."""
    untie_head: bool = False
    """Give a model at a path whose head is its embedding table a head of its own, which starts as a copy of it."""
    model_type: Literal["llama", "mistral", "qwen2", "qwen3", "gpt2"] = "llama"
    """Family of a new model. qwen2 adds a bias to q, k and v; qwen3 normalises q and k per head; gpt2 has learned positions,
    layer norms, biases and a GELU."""
    hidden_size: Annotated[int, Meta(ge=8, le=65_536)] = 192
    """Width of the residual stream."""
    intermediate_size: Annotated[int, Meta(ge=8, le=262_144)] | None = None
    """Width inside the feed-forward block; by default 8/3 of hidden_size, rounded up to a multiple of 64; gpt2: 4 times."""
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
    max_position_embeddings: Annotated[int, Meta(ge=1, le=1_073_741_824)] = 4096
    """Longest conversation the model is made for, in tokens; a gpt2 model cannot read a longer one."""
    rms_norm_eps: Unit = 1e-6
    """Added to the mean square, or the variance, before its root is taken."""
    tie_word_embeddings: bool = True
    """Whether the output head is the embedding table."""
    initializer_range: Unit = 0.02
    """Standard deviation of a new model's weights."""

    def __post_init__(self) -> None:
        """Refuse sizes that contradict each other."""
        if self.path is not None:
            default = Model()
            clash = [name for name in self.__struct_fields__ if getattr(self, name) != getattr(default, name)]
            clash = [name for name in clash if name not in ("path", "revision", "untie_head")]
            if clash:
                raise ValueError(
                    f"path and {', '.join(clash)} are both set; a model at a path has its own sizes: drop one"
                )
            return
        if self.untie_head:
            raise ValueError("untie_head is for a model at a path; for a new one set tie_word_embeddings = false")
        if self.revision is not None:
            raise ValueError(f"revision = {self.revision!r} belongs to a model on the hub; set path to its name")
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
        if self.model_type == "gpt2":
            self._refuse_rotary()

    def _refuse_rotary(self) -> None:
        """Refuse what a GPT-2 model has no place for."""
        if self.num_key_value_heads not in (None, self.num_attention_heads):
            raise ValueError(
                f"num_key_value_heads {self.num_key_value_heads}: every head of a gpt2 model has its own keys and values; "
                "leave it out"
            )
        if self.rope_scaling is not None or self.rope_theta != 10_000.0:
            raise ValueError(
                "rope_theta and rope_scaling do nothing in a gpt2 model, which learns its positions; drop them"
            )
        if self.head_dim not in (None, self.hidden_size // self.num_attention_heads):
            raise ValueError(
                f"head_dim {self.head_dim}: the heads of a gpt2 model share hidden_size evenly; leave it out"
            )


class Lora(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Low-rank adapters (Hu et al. 2021): y = W x + alpha / rank · B A x, with A and B trained and W as it is."""

    rank: Annotated[int, Meta(ge=0, le=65_536)] = 0
    """Rows of A; 0: no adapters, the model's own weights are trained."""
    alpha: Annotated[float, Meta(gt=0.0, le=1e6)] = 16.0
    """Scale of what the adapters add, over rank."""
    dropout: Share = 0.0
    """Share of what goes into A that is left out, drawn anew for every token."""
    targets: tuple[str, ...] = ("all-linear",)
    """Matrices that get adapters: all-linear (every matrix of the blocks), or regular expressions searched in their Hugging
    Face names, e.g. q_proj, lm_head, c_attn. One that matches nothing is an error."""
    merge: bool = True
    """Whether the export is the whole model with the adapters added in; RUN/train/adapter has them alone, as PEFT reads them."""

    def __post_init__(self) -> None:
        """Refuse settings that would do nothing."""
        if not self.targets:
            raise ValueError(
                'targets is empty, so that nothing would get adapters; name some, or leave it out ("all-linear")'
            )
        if self.rank == 0 and (idle := [name for name, value in _LORA.items() if getattr(self, name) != value]):
            raise ValueError(
                f"{', '.join(idle)} set and rank = 0, so that there are no adapters; set rank, or drop them"
            )


_LORA: Final = {"alpha": 16.0, "dropout": 0.0, "targets": ("all-linear",), "merge": True}
"""What [lora] says where it says nothing."""
