"""The export, as transformers sees it."""

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest
import torch
import transformers
from safetensors.torch import load_file

from schemas.models import Model
from trainer.answers.generate import generate
from trainer.data.assets import NEEDED, GenerationConfig, decode_generation_config
from trainer.export import export
from trainer.model.architecture import hugging_face_config, new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.model.families import CLASSES
from trainer.model.layout import to_hugging_face
from trainer.model.weights import load_pretrained

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS = {
    "llama": {},
    "llama3": {"rope_scaling": LLAMA3, "tie_word_embeddings": False, "rope_theta": 500_000.0},
    "llama, linear positions": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "llama, a key for each query": {"num_key_value_heads": None},
    "mistral": {"model_type": "mistral", "head_dim": 16},
    "mistral, window of 8": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "gpt2": {"model_type": "gpt2", "num_key_value_heads": None, "max_position_embeddings": 64},
    "gpt2, untied": {"model_type": "gpt2", "num_key_value_heads": None, "tie_word_embeddings": False},
}


def model_of(name: str) -> Decoder:
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}
    architecture = new_architecture(msgspec.convert(sizes | MODELS[name], Model), vocab_size=304)
    if name.endswith("window of 8"):
        architecture = msgspec.structs.replace(architecture, sliding_window=8)
    model = Decoder(architecture)
    initialise(model, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model.eval()


def assets_of(run: Path) -> dict[str, bytes]:
    return {name: (run / "tokenizer" / name).read_bytes() for name in NEEDED}


def generation_of(run: Path) -> GenerationConfig:
    path = run / "tokenizer" / "generation_config.json"
    return decode_generation_config(path.read_bytes(), where=path)


@pytest.mark.parametrize("name", MODELS)
def test_transformers_loads_it_with_a_logit_difference_of_0_and_answers_alike(
    name: str, run: Path, tmp_path: Path
) -> None:
    model, generation = model_of(name), generation_of(run)
    export(tmp_path / "export", model, assets=assets_of(run), generation=generation, dtype="float32")
    loaded, loading = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert type(loaded).__name__ == CLASSES[model.architecture.model_type]
    assert not any(loading.values())
    # the same class, filled by hand with the weights in memory
    by_hand = transformers.AutoModelForCausalLM.from_config(loaded.config)
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    report = by_hand.load_state_dict(to_hugging_face(parameters, model.architecture), strict=False)
    assert report.unexpected_keys == []
    assert set(report.missing_keys) <= {"lm_head.weight"}
    ids = torch.arange(2, 60)
    with torch.no_grad():
        theirs = loaded(ids[None]).logits[0]
        assert (theirs - by_hand.eval()(ids[None]).logits[0]).abs().max() == 0.0
        assert (theirs - model.logits(ids, (58,))).abs().max() <= 1e-5
    assert set(loaded.generation_config.eos_token_id) == generation.stop_ids() == {301, 303}
    prompt = [302, 60, 70, 80]
    ours = generate(model, prompt, stop_ids=generation.stop_ids(), max_new_tokens=20, temperature=0.0, seed=0)
    answer = loaded.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)[0, len(prompt) :]
    assert answer.tolist() == list(ours.ids)


def test_tokenizer_and_template_travel_with_it(run: Path, tmp_path: Path) -> None:
    export(
        tmp_path / "export", model_of("qwen2"), assets=assets_of(run), generation=generation_of(run), dtype="float32"
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "export" / name).read_bytes() == (run / "tokenizer" / name).read_bytes()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "one"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"


def test_bfloat16_halves_the_weights(run: Path, tmp_path: Path) -> None:
    export(
        tmp_path / "export", model_of("llama"), assets=assets_of(run), generation=generation_of(run), dtype="bfloat16"
    )
    assert {t.dtype for t in load_file(tmp_path / "export" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "export" / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("name", ["qwen3", "mistral, window of 8", "gpt2, untied"])
def test_the_trainer_starts_again_from_its_own_export(name: str, run: Path, tmp_path: Path) -> None:
    model = model_of(name)
    export(tmp_path / "export", model, assets=assets_of(run), generation=generation_of(run), dtype="float32")
    again, notices = load_pretrained(tmp_path / "export", vocab_size=304)
    assert notices == []
    assert again.architecture == model.architecture
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


class ByteStringNeverRead(dict[str, bytes]):
    """Files of which one cannot be had."""

    def items(self):  # type: ignore[no-untyped-def,override]
        raise OSError("the disk is gone")


def test_a_failed_export_leaves_the_one_before(run: Path, tmp_path: Path) -> None:
    generation = generation_of(run)
    export(tmp_path / "export", model_of("llama"), assets=assets_of(run), generation=generation, dtype="float32")
    before = (tmp_path / "export" / "config.json").read_bytes()
    with pytest.raises(OSError, match="gone"):
        export(
            tmp_path / "export", model_of("qwen2"), assets=ByteStringNeverRead(), generation=generation, dtype="float32"
        )
    assert (tmp_path / "export" / "config.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_its_files_have_the_permissions_that_the_umask_gives(run: Path, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        export(
            tmp_path / "export",
            model_of("llama"),
            assets=assets_of(run),
            generation=generation_of(run),
            dtype="float32",
        )
    finally:
        os.umask(old)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "export").iterdir()} == {0o640}


def test_the_config_names_no_switch_that_transformers_does_not_know() -> None:
    config = hugging_face_config(new_architecture(Model(model_type="qwen2"), vocab_size=9), dtype="float32")
    assert not {"qkv_bias", "o_bias", "qk_norm"} & set(config)
    assert config["architectures"] == ["Qwen2ForCausalLM"]
