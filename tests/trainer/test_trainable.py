"""Which weights learn: what each word means, and that nothing else moves."""

import hashlib

import pytest
import torch

from schemas.models import Lora
from schemas.settings import ConfigError
from schemas.training import Group, Train, Trainable
from tests.trainer.tiny import tiny_batch, tiny_model
from trainer.frozen import fingerprint, narrow, widen
from trainer.model.decoder import Decoder
from trainer.model.lora import adapt
from trainer.optim import make_adamw, set_learning_rate
from trainer.trainable import select

LAST = ("layers.1.", "norm.")


def hashes(model: Decoder) -> dict[str, str]:
    return {
        name: hashlib.sha256(p.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, p in model.named_parameters()
    }


def learning(model: Decoder, trainable: Trainable | None) -> set[str]:
    names = select(model, trainable).names
    assert names == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return set(names)


def of(model: Decoder, *ends: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if any(end in name for end in ends)}


def test_words_and_patterns_mean_what_they_say() -> None:
    model = tiny_model("gpt2", num_hidden_layers=3, tie_word_embeddings=False)
    everything = {name for name, _ in model.named_parameters()}
    assert learning(model, None) == everything
    assert learning(model, "all") == everything
    last = {name for name in everything if name.startswith(("layers.2.", "norm."))}
    assert learning(model, "last_block") == last
    assert learning(model, "last_1_blocks") == last
    assert learning(model, "last_2_blocks") == last | {name for name in everything if name.startswith("layers.1.")}
    assert learning(model, "head") == {"lm_head.weight"}
    assert learning(model, "norms") == of(model, "norm.weight", "norm.bias")
    assert len(learning(model, "norms")) == 2 * (2 * 3 + 1)
    assert learning(model, "biases") == of(model, ".bias")
    assert learning(model, r"h\.0\.attn\.c_attn") == of(model, "layers.0.self_attn.qkv_proj.")
    assert learning(model, ("head", "wpe")) == {"lm_head.weight", "embed_positions.weight"}
    # a word is a word only as a whole
    assert learning(model, "lm_head") == {"lm_head.weight"}


def test_a_pattern_takes_a_fused_matrix_whole_or_not_at_all() -> None:
    model = tiny_model("qwen2")
    assert learning(model, "[qkv]_proj") == of(model, "qkv_proj.")
    with pytest.raises(ConfigError) as caught:
        select(model, "q_proj")
    assert str(caught.value) == (
        "[train] trainable: 'q_proj' matches model.layers.0.self_attn.q_proj.weight alone, which lies in one matrix with its "
        "neighbours: q_proj, k_proj, v_proj learn together or not at all. Match all of them, or give this one an adapter "
        "([lora] targets)"
    )


def test_the_head_of_a_tied_model_is_its_embedding_and_the_report_says_so() -> None:
    model = tiny_model()
    assert learning(model, "head") == {"embed_tokens.weight"}
    assert select(model, "head").lines() == [
        "1,600 of 32,480 parameters learn (4.93%)",
        "  model.embed_tokens.weight     1 tensor             1,600",
        "the head is the embedding table (tie_word_embeddings), so that learns",
    ]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("last_3_blocks", "'last_3_blocks': the model has 2 blocks; expected 1 to 2"),
        ("last_0_blocks", "'last_0_blocks': the model has 2 blocks; expected 1 to 2"),
        ("biases", "'biases' matches nothing: this llama model has none"),
        ("last_blocks", "'last_blocks' matches nothing; did you mean last_block or last_2_blocks?"),
        (
            "input_layer_norm",
            "'input_layer_norm' matches nothing; did you mean input_layernorm or post_attention_layernorm?",
        ),
        ("zzz", "'zzz' matches nothing; expected a part of a name such as model.embed_tokens.weight, "),
        ("[", "'[' is no regular expression: unterminated character set at position 0"),
        ((), " is empty, so that nothing would learn; name some weights, or leave it out (all)"),
    ],
)
def test_what_matches_nothing_is_refused(word: Trainable, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        select(tiny_model(), word)
    assert said in str(caught.value)
    assert str(caught.value).startswith("[train] trainable")


def test_adapters_learn_alone_or_with_others() -> None:
    model = tiny_model()
    adapt(model, Lora(rank=2, targets=("down_proj",)), seed=0)
    beside = of(model, "lora_")
    assert learning(model, None) == beside
    assert learning(model, "norms") == beside | of(model, "norm.weight")


def test_the_report() -> None:
    model = tiny_model()
    assert select(model, None).lines() == ["all 32,480 parameters learn"]
    adapt(model, Lora(rank=2, targets=("q_proj",)), seed=0)
    assert select(model, "last_block").lines() == [
        "15,712 of 32,736 parameters learn (48.00%); the model itself has 32,480, its adapters of rank 2 256",
        "  model.layers.*.self_attn.q_proj (adapter)          4 tensors              256",
        "  model.layers.*.input_layernorm.weight              1 tensor                32",
        "  model.layers.*.self_attn.q_proj.weight             1 tensor             1,024",
        "  model.layers.*.self_attn.k_proj.weight             1 tensor               512",
        "  model.layers.*.self_attn.v_proj.weight             1 tensor               512",
        "  model.layers.*.self_attn.o_proj.weight             1 tensor             1,024",
        "  model.layers.*.post_attention_layernorm.weight     1 tensor                32",
        "  model.layers.*.mlp.gate_proj.weight                1 tensor             4,096",
        "  model.layers.*.mlp.up_proj.weight                  1 tensor             4,096",
        "  model.layers.*.mlp.down_proj.weight                1 tensor             4,096",
        "  model.norm.weight                                  1 tensor                32",
    ]


CASES = [
    ("llama", 0, "all"),
    ("gpt2", 0, "last_block"),
    ("llama", 0, "last_2_blocks"),
    ("qwen3", 0, "head"),
    ("qwen3", 0, "norms"),
    ("qwen2", 0, "biases"),
    ("gpt2", 0, r"mlp\.c_fc"),
    ("llama", 4, None),
    ("gpt2", 4, None),
    ("qwen2", 4, ("last_block", "biases")),
    ("llama", 4, "all"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "rank", "trainable"), CASES)
def test_after_five_steps_what_was_chosen_has_changed_and_nothing_else(
    family: str, rank: int, trainable: Trainable | None, dtype: torch.dtype
) -> None:
    model = tiny_model(family, tie_word_embeddings=False)
    if rank:
        adapt(model, Lora(rank=rank, targets=("all-linear", "lm_head")), seed=0)
    chosen = select(model, trainable).names
    before, base = hashes(model), fingerprint(model)
    narrowed = narrow(model, dtype)
    pattern = ".*" if not rank else "lora_B"
    train = Train(weight_decay=0.1, groups=(Group(pattern=pattern, lr_scale=2.0),))
    optimizer = make_adamw(model, train)
    for step in range(5):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(tiny_batch(16, 9, seed=step)).objective
        loss.backward()
        set_learning_rate(optimizer, 1e-2)
        optimizer.step()
        optimizer.zero_grad()
    assert {id(parameter) for parameter in optimizer.state} == {id(model.get_parameter(name)) for name in chosen}
    widen(model, narrowed)
    after = hashes(model)
    assert {name for name, digest in after.items() if digest != before[name]} == chosen
    assert fingerprint(model) == base
