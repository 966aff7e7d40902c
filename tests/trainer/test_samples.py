"""Samples: what is asked for is what is done, what is recorded, and what is printed."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from schemas.generation import Generation
from schemas.models import Model
from trainer.answers.desk import Answer
from trainer.answers.generate import Prompt, answers
from trainer.answers.samples import answer_all, write_samples
from trainer.compiled import compile_blocks
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.report.console import Reporter
from trainer.step import Precision

PROMPTS = [Prompt(id=f"a:{i}", input_ids=(302, 60, 70 + i), expected_ids=(80, 81, 303)) for i in range(5)]
PRECISION = Precision(device=torch.device("cpu"), dtype=torch.float32)


@pytest.fixture
def model() -> Decoder:
    sizes = Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=2)
    decoder = Decoder(new_architecture(sizes, vocab_size=304))
    initialise(decoder, seed=0)
    return decoder


def test_all_settings_of_generation_hold_for_samples(model: Decoder) -> None:
    settings = Generation(max_new_tokens=6, temperature=2.0, top_k=5, top_p=0.9, repetition_penalty=1.4, batch=2)
    found = answer_all(model, PROMPTS, settings=settings, stop_ids={303}, seed=3, precision=PRECISION)
    given = [prompt.input_ids for prompt in PROMPTS]
    assert found == answers(model, given, settings=settings, stop_ids={303}, seed=3)
    plain = Generation(max_new_tokens=6, temperature=2.0)
    assert found != answer_all(model, PROMPTS, settings=plain, stop_ids={303}, seed=3, precision=PRECISION)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in what it loads to compile
def test_compiled_blocks_answer_uncompiled(model: Decoder) -> None:
    settings = Generation(max_new_tokens=4)
    before = answer_all(model, PROMPTS, settings=settings, stop_ids=(), seed=0, precision=PRECISION)

    def refuse(*_: object) -> None:
        raise AssertionError("something is compiled")

    compile_blocks(model, backend=refuse)
    assert answer_all(model, PROMPTS, settings=settings, stop_ids=(), seed=0, precision=PRECISION) == before
    ids = torch.arange(5)
    with torch.no_grad(), pytest.raises(Exception, match="something is compiled"):
        model.logits(ids, (5,))


def test_the_file_has_everything_and_the_screen_what_is_new(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.from_file(str(run / "tokenizer" / "tokenizer.json"))
    prompt = Prompt(id="a:1", input_ids=tuple(tokenizer.encode("one two").ids), expected_ids=(60, 303))
    said = tokenizer.encode("zero\n" * 60).ids
    answer = Answer(ids=(*said, 303), is_stopped=True)
    for step, in_full in ((0, True), (5, False), (9, True)):
        write_samples(
            tmp_path / "samples.jsonl",
            tokenizer,
            [prompt],
            [answer],
            step=step,
            split="validation",
            reporter=Reporter(is_silent=False),
            in_full=in_full,
        )
    first, second, _ = map(json.loads, (tmp_path / "samples.jsonl").read_text().splitlines())
    assert first | {"step": 5} == second
    assert second == {
        "step": 5,
        "id": "a:1",
        "split": "validation",
        "prompt": "one two",
        "expected": tokenizer.decode([60, 303], skip_special_tokens=False),
        "answer": "zero\n" * 60 + "<|im_end|>",
        "is_stopped": True,
        "n_tokens": len(said) + 1,
    }
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["── sample a:1, before training", "   prompt    one two"]
    cut = "zero⏎" * 32 + " …"
    assert lines[3:6] == [f"   answer    {cut}", "   a:1: " + "zero⏎" * 16 + " …", "── sample a:1, after 9 steps"]
    assert lines[8:] == [f"   before    {cut}", f"   after     {cut}"]
