"""Useful operations, against torch's own counter of those that are done."""

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from schemas.models import Lora, Model
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder, initialise
from trainer.model.lora import adapt
from trainer.report.flops import Work, count_pairs, count_work
from trainer.report.meter import Window, Yardstick, peak_resident
from trainer.report.peak import TERA, by_data_sheet, measured

LENGTHS = (17, 40, 37)
N_ROWS = 64
"""What it would be made a multiple of: the rows that only fill up are not useful."""
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def tiny(**changes: Any) -> Decoder:
    model = Decoder(new_architecture(Model(**SIZES | changes), vocab_size=101))
    initialise(model, seed=0)
    return model


def learn_only(model: Decoder, *parts: str) -> Decoder:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))
    return model


def counted(model: Decoder) -> tuple[float, float]:
    """Return what torch counts in products of matrices, and in attention, whose products are made one by one here."""
    rows = torch.arange(N_ROWS)
    batch = Batch(
        input_ids_T=torch.arange(sum(LENGTHS)),
        positions_T=torch.cat([torch.arange(n) for n in LENGTHS]),
        lengths=LENGTHS,
        rows_S=rows,
        targets_S=rows,
        weights_S=torch.ones(N_ROWS),
    )
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(batch).objective.backward()
    found = {str(op): float(n) for op, n in counter.get_flop_counts()["Global"].items()}
    attention = found.pop("aten.bmm")
    # it does not know addmm_, which adds the gradient of the head to that of the chunks before
    head = 2.0 * model.head_VC.numel() * N_ROWS if model.head_VC.requires_grad else 0.0
    return sum(found.values()) + head, attention


def matrices(work: Work) -> float:
    return work.of(n_tokens=sum(LENGTHS), n_rows=N_ROWS, n_pairs=0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_key_value_heads": 2}, {"tie_word_embeddings": False}, {"model_type": "gpt2"}, {"model_type": "qwen3"}],
    ids=["llama", "grouped", "untied", "gpt2", "qwen3"],
)
def test_products_of_matrices_are_those_that_torch_counts(changes: dict[str, Any]) -> None:
    model = tiny(**changes)
    assert matrices(count_work(model)) == counted(model)[0]


@pytest.mark.parametrize(
    "parts", [("layers.1.", "norm.weight"), ("mlp.", "layernorm"), ("lm_head",), ("layers.0.",), ("norm",)]
)
def test_weights_that_do_not_learn_cost_what_torch_counts(parts: tuple[str, ...]) -> None:
    model = learn_only(tiny(tie_word_embeddings=False), *parts)
    assert matrices(count_work(model)) == counted(model)[0]


def test_a_frozen_block_below_all_that_learns_is_only_run_forward() -> None:
    model = tiny(tie_word_embeddings=False)
    per_block = sum(weight.numel() for weight in model.layers[0].parameters() if weight.dim() == 2)
    qkv = model.get_parameter("layers.0.self_attn.qkv_proj.weight").numel()
    rest, head = per_block - qkv, 101 * 32  # of the last block the rest, like the head, is needed on trained rows alone

    def per_token_and_row(*parts: str) -> tuple[float, float]:
        work = count_work(learn_only(model, *parts))
        return work.per_token, work.per_row

    assert per_token_and_row("layers.1.") == (2 * per_block + 6 * qkv, 6 * rest + 4 * head)
    assert per_token_and_row("layers.0.input_layernorm") == (4 * per_block + 4 * qkv, 4 * rest + 4 * head)
    assert per_token_and_row("lm_head") == (2 * per_block + 2 * qkv, 2 * rest + 4 * head)
    assert per_token_and_row("embed_tokens") == (4 * per_block + 4 * qkv, 4 * rest + 4 * head)
    assert per_token_and_row("") == (6 * per_block + 6 * qkv, 6 * rest + 6 * head)


@pytest.mark.parametrize("parts", [("",), ("layers.1.",), ("lm_head",)])
def test_attention_counts_the_causal_half_of_the_squares_that_torch_counts(parts: tuple[str, ...]) -> None:
    model = learn_only(tiny(tie_word_embeddings=False), *parts)
    assert count_work(model).per_pair * sum(n * n for n in LENGTHS) == counted(model)[1]
    assert count_pairs(LENGTHS) == sum(n * (n + 1) // 2 for n in LENGTHS)


def test_adapters_learn_and_what_they_stand_beside_does_not() -> None:
    """6 operations per weight that learns and 4 per frozen one; the adapters of the head count on trained rows, as it does."""
    model = tiny(tie_word_embeddings=False).requires_grad_(False)
    before = count_work(model)
    adapt(model, Lora(rank=3, targets=("all-linear", "lm_head")), seed=0)
    adapters = {name: p.numel() for name, p in model.named_parameters() if "lora_" in name}
    assert all(model.get_parameter(name).requires_grad for name in adapters)
    of_head = sum(n for name, n in adapters.items() if name.startswith("lm_head"))
    assert of_head == 3 * (32 + 101)
    # what follows the last attention counts on trained rows, too
    of_end = sum(n for name, n in adapters.items() if name.startswith("layers.1.") and "qkv_proj" not in name)
    work = count_work(model)
    assert work.per_token == 2 * before.per_token + 6 * (sum(adapters.values()) - of_head - of_end)
    assert work.per_row == 2 * before.per_row + 6 * (of_head + of_end)


def test_a_window_leaves_a_band() -> None:
    n, window = 12, 5
    assert count_pairs([n, 3], window) == sum(min(i + 1, window) for i in range(n)) + 6
    assert count_pairs([4], 5) == 10


def test_devices_are_found_by_the_most_special_part_of_their_names() -> None:
    assert by_data_sheet("NVIDIA H100 PCIe") == 756.0 * TERA
    assert by_data_sheet("NVIDIA H100 80GB HBM3") == 989.4 * TERA
    assert by_data_sheet("NVIDIA A100-SXM4-80GB") == 312.0 * TERA
    assert by_data_sheet("NVIDIA L40S") == 362.05 * TERA
    assert by_data_sheet("NVIDIA GeForce RTX 4090") == 165.2 * TERA
    assert by_data_sheet("NVIDIA A1000") is None


def test_measuring_the_peak_draws_no_number_that_others_would_miss() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert measured(torch.device("cpu"), torch.float32) > 1e8
    assert torch.equal(torch.get_rng_state(), before)


def test_the_share_of_the_peak_is_that_of_all_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.report.meter.peak", lambda *_: (100.0, "a table"))
    yardstick = Yardstick(torch.device("cpu"), torch.float32, n_devices=2)
    assert yardstick.mfu(Window(tokens=1, seconds=3.0, flops=300.0)) == 0.5
    assert yardstick.mfu(Window()) is None
    found, later = yardstick.memory_bytes(), peak_resident()
    assert found is not None
    assert later is not None
    assert 50e6 < found <= later
