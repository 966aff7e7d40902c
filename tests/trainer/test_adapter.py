"""Adapters on disk, as PEFT reads them: the same logits, the same gradients, and the same model once merged."""

import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from schemas.models import Lora
from schemas.settings import ConfigError
from schemas.training import Trainable
from tests.trainer.tiny import shake, tiny_batch, tiny_model
from trainer.adapter import check_export, write_adapter
from trainer.data.assets import GenerationConfig
from trainer.export import export
from trainer.model.decoder import Decoder
from trainer.model.lora import adapt, adapted_modules
from trainer.model.weights import load_pretrained
from trainer.trainable import select

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
STOP = GenerationConfig(eos_token_id=1)
BOOK = ("q_proj", "k_proj", "v_proj", "c_proj", "c_fc", "lm_head")
CASES: dict[str, tuple[str, tuple[str, ...], Trainable | None]] = {
    "all of llama": ("llama", ("all-linear", "lm_head"), None),
    "q and v of qwen2": ("qwen2", ("q_proj", "v_proj"), None),
    "one layer of qwen3": ("qwen3", (r"layers\.1\..*(q_proj|down_proj)",), None),
    "gpt2 as PEFT targets it": ("gpt2", ("all-linear",), None),
    "gpt2 as the book targets it": ("gpt2", BOOK, None),
    "v of gpt2 in one layer": ("gpt2", (r"h\.1\.attn\.v_proj", "c_fc"), None),
    "whole modules besides": ("qwen2", ("q_proj", "v_proj"), ("norms", "head", r"layers\.1\.mlp")),
    "whole modules of gpt2 besides": ("gpt2", ("q_proj",), ("norms", r"h\.0\.mlp", "wpe")),
}


def adapted(family: str, targets: tuple[str, ...], trainable: Trainable | None, home: Path, **sizes: Any) -> Decoder:
    """A model whose base lies in HOME/base and whose adapters, which have learned, in HOME/adapter."""
    model = tiny_model(family, **{"tie_word_embeddings": False} | sizes)
    export(home / "base", model, assets={}, generation=STOP, dtype="float32")
    lora = Lora(rank=4, alpha=12.0, targets=targets)
    adapt(model, lora, seed=1)
    select(model, trainable)
    shake(model, seed=2)
    assert write_adapter(home / "adapter", model, lora, base=str(home / "base"), assets={"extra.txt": b"x"}) is None
    return model


def with_peft(home: Path, *, is_trainable: bool = False) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of fan_in_fan_out, which PEFT puts right for the head, and its own deprecations
        base = transformers.AutoModelForCausalLM.from_pretrained(home / "base", dtype=torch.float32)
        return peft.PeftModel.from_pretrained(base, home / "adapter", is_trainable=is_trainable)


@pytest.mark.parametrize("case", CASES)
def test_peft_computes_the_same_and_so_does_the_merged_export(case: str, tmp_path: Path) -> None:
    model = adapted(*CASES[case], tmp_path)
    ids_T = torch.randint(0, 50, (30,), generator=torch.Generator().manual_seed(0))
    ours = model.logits(ids_T, (30,))
    theirs = with_peft(tmp_path).eval()(ids_T[None]).logits[0]
    assert (theirs - ours).abs().max() < 1e-5
    export(tmp_path / "export", model, assets={}, generation=STOP, dtype="float32")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    assert (merged(ids_T[None]).logits[0] - ours).abs().max() < 1e-5
    again, notices = load_pretrained(tmp_path / "export", vocab_size=50)
    assert notices == []
    assert (again.logits(ids_T, (30,)) - ours).abs().max() < 1e-5
    base, _ = load_pretrained(tmp_path / "base", vocab_size=50)
    assert (base.logits(ids_T, (30,)) - ours).abs().max() > 0.1
    assert (tmp_path / "adapter" / "extra.txt").read_bytes() == b"x"


def assert_near(a: torch.Tensor, b: torch.Tensor, rtol: float) -> None:
    assert (a - b).norm() <= rtol * b.norm() > 0


@pytest.mark.parametrize(
    ("case", "rtol"),
    # the norms and rotations of transformers' llama are float32 in a float64 model, too
    [("all of llama", 1e-5), ("gpt2 as PEFT targets it", 1e-10), ("gpt2 as the book targets it", 1e-10)],
)
def test_gradients_are_peft_s(case: str, rtol: float, tmp_path: Path) -> None:
    model = adapted(*CASES[case], tmp_path).double()
    theirs = with_peft(tmp_path, is_trainable=True).double()
    batch = tiny_batch(30)
    loss = model(batch).objective
    loss.backward()
    rows = theirs(batch.input_ids_T[None]).logits[0][batch.rows_S]
    expected = functional.cross_entropy(rows, batch.targets_S, reduction="none") @ batch.weights_S.double()
    expected.backward()
    assert torch.allclose(loss, expected, rtol=rtol)
    found = {name.replace(".default", ""): p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    n_compared = 0
    for _, module in adapted_modules(model):
        a_grads = [module.lora_A[part.short].grad for part in module.parts]
        b_grads = [module.lora_B[part.short].grad for part in module.parts]
        names = [part.name for part in module.parts]
        is_third = case == "gpt2 as the book targets it" and names[0].endswith("q_proj")
        if is_third:
            # PEFT's B has values off the diagonal too, which start at 0 there; ours has none
            names, a_grads, b_grads = (
                [names[0].replace("q_proj", "c_attn")],
                [torch.cat(a_grads)],
                [torch.block_diag(*b_grads)],
            )
        for name, a, b in zip(names, a_grads, b_grads, strict=True):
            prefix = f"base_model.model.{name}"
            their_b = found[f"{prefix}.lora_B.weight"]
            assert_near(a, found[f"{prefix}.lora_A.weight"], rtol)
            assert_near(b, torch.where(b != 0, their_b, 0.0) if is_third else their_b, rtol)
            n_compared += 1
    assert n_compared * 2 == len(found)


def test_the_config_says_it_as_peft_does(tmp_path: Path) -> None:
    adapted("gpt2", ("q_proj", "v_proj", "c_fc"), ("norms",), tmp_path)
    config = msgspec.json.decode((tmp_path / "adapter" / "adapter_config.json").read_bytes())
    c_attn = ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]
    assert config == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "base_model_name_or_path": str(tmp_path / "base"),
        "revision": None,
        "r": 4,
        "lora_alpha": 12.0,
        "lora_dropout": 0.0,
        "target_modules": ["c_attn", "c_fc"],
        "rank_pattern": dict.fromkeys(c_attn, 8),
        "alpha_pattern": dict.fromkeys(c_attn, 24.0),
        "modules_to_save": [*(f"transformer.h.{i}.ln_{n}" for i in (0, 1) for n in (1, 2)), "transformer.ln_f"],
        "fan_in_fan_out": True,
        "bias": "none",
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    b = tensors["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"]
    assert b.shape == (96, 8)
    # rows of q, k and v; the first four columns are q's, the others v's
    assert [[bool(rows[:, columns].any()) for columns in (slice(4), slice(4, 8))] for rows in b.split(32)] == [
        [True, False],
        [False, False],
        [False, True],
    ]


def test_what_peft_has_no_form_for_is_not_written(tmp_path: Path) -> None:
    lora = Lora(rank=2, targets=("q_proj",), merge=False)
    model = tiny_model("qwen2")
    adapt(model, lora, seed=0)
    select(model, "biases")
    why = write_adapter(tmp_path / "adapter", model, lora, base="b", assets={})
    assert why == "model.layers.0.self_attn.q_proj learns itself and has an adapter, which PEFT does not know together"
    assert not (tmp_path / "adapter").exists()
    with pytest.raises(ConfigError, match=r"merge = false: .* does not know together; set merge = true"):
        check_export(model, lora, base="b")
    select(model, "head")
    assert "PEFT would part the two" in str(write_adapter(tmp_path / "adapter", model, lora, base="b", assets={}))
    select(model, "norms")
    check_export(model, lora, base="b")
    with pytest.raises(ConfigError, match="the model they belong to lies nowhere"):
        check_export(model, lora, base=None)
    check_export(model, msgspec.structs.replace(lora, merge=True), base=None)


def test_a_narrow_export_is_rounded_once(tmp_path: Path) -> None:
    model = adapted("llama", ("all-linear",), None, tmp_path)
    for name, dtype in (("wide", "float32"), ("narrow", "bfloat16")):
        export(tmp_path / name, model, assets={}, generation=STOP, dtype=dtype)
    wide, narrow = (load_file(tmp_path / name / "model.safetensors") for name in ("wide", "narrow"))
    assert all(torch.equal(narrow[name], tensor.to(torch.bfloat16)) for name, tensor in wide.items())
