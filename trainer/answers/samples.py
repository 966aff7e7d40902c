"""Sampling held-out prompts before, while and after a model is trained: printed for a person, kept in samples.jsonl."""

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from schemas.generation import Generation
from trainer.answers.desk import Answer
from trainer.answers.generate import Prompt, answers
from trainer.model.decoder import Decoder
from trainer.report.console import Reporter
from trainer.report.metrics import append
from trainer.step import Precision

SHOWN = 160
"""Characters of a prompt, expectation or answer that are printed; the file has all of them."""
SHOWN_BETWEEN = 80
"""Characters of an answer that are printed while training goes on."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One line of samples.jsonl."""

    step: int
    """Steps done when it was written; 0 is before training."""
    id: str
    split: str
    prompt: str
    expected: str
    answer: str
    is_stopped: bool
    """Whether the answer ended on a stop token."""
    n_tokens: int


def answer_all(
    model: Decoder,
    prompts: Sequence[Prompt],
    *,
    settings: Generation,
    stop_ids: Collection[int],
    seed: int,
    precision: Precision,
) -> list[Answer]:
    """Return the model's answer to each prompt, prompt i drawing from seed + i."""
    given = [prompt.input_ids for prompt in prompts]
    with precision.autocast():
        return answers(model, given, settings=settings, stop_ids=stop_ids, seed=seed)


def is_ended(tokenizer: Tokenizer, answer: Answer) -> bool:
    """Tell whether an answer says something and then ends on a stop token; an empty one proves nothing."""
    return answer.is_stopped and bool(tokenizer.decode(list(answer.ids[:-1])).strip())


def write_samples(
    path: Path,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    answers: Sequence[Answer],
    *,
    step: int,
    split: str,
    reporter: Reporter,
    in_full: bool,
) -> None:
    """Append the answers to `path` and print them: one line each, or `in_full` with prompt, expectation and first answer."""
    before = _first_answers(path) if in_full and step else {}
    for prompt, answer in zip(prompts, answers, strict=True):
        sample = Sample(
            step=step,
            id=prompt.id,
            split=split,
            prompt=tokenizer.decode(list(prompt.input_ids), skip_special_tokens=False),
            expected=tokenizer.decode(list(prompt.expected_ids), skip_special_tokens=False),
            answer=tokenizer.decode(list(answer.ids), skip_special_tokens=False),
            is_stopped=answer.is_stopped,
            n_tokens=len(answer.ids),
        )
        append(path, sample)
        if not in_full:
            reporter.say(f"   {sample.id}: {_shortened(sample.answer, SHOWN_BETWEEN)}")
            continue
        when = "before training" if step == 0 else f"after {step} steps"
        reporter.say(f"── sample {sample.id}, {when}")
        reporter.say(f"   prompt    {_shortened(sample.prompt, from_end=True)}")
        reporter.say(f"   expected  {_shortened(sample.expected)}")
        if sample.id in before:
            reporter.say(f"   before    {_shortened(before[sample.id])}")
        reporter.say(f"   {'after ' if sample.id in before else 'answer'}    {_shortened(sample.answer)}")


def _first_answers(path: Path) -> dict[str, str]:
    """Return what was answered before training, by prompt, as far as `path` has it."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    samples = [msgspec.json.decode(line, type=Sample) for line in lines]
    return {sample.id: sample.answer for sample in samples if sample.step == 0}


def _shortened(text: str, limit: int = SHOWN, *, from_end: bool = False) -> str:
    line = text.replace("\n", "⏎")
    if len(line) <= limit:
        return line
    return f"… {line[-limit:]}" if from_end else f"{line[:limit]} …"
