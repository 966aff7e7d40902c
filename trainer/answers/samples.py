"""Sampling held-out prompts before and after training: printed for a person, kept in samples.jsonl."""

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from trainer.answers.generate import Answer, Prompt, generate
from trainer.model.decoder import Decoder
from trainer.report.console import Reporter
from trainer.report.metrics import append
from trainer.step import Precision

SHOWN = 300
"""Characters of a prompt, expectation or answer that are printed; the file has all of them."""


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
    stop_ids: Collection[int],
    seed: int,
    precision: Precision,
    temperature: float,
    limit: int,
) -> list[Answer]:
    """Return the model's answer to each prompt, prompt i drawing from seed + i."""
    room = model.architecture.max_position_embeddings
    with precision.autocast():
        return [
            generate(
                model,
                prompt.input_ids,
                stop_ids=stop_ids,
                max_new_tokens=max(1, min(limit, room - len(prompt.input_ids))),
                temperature=temperature,
                seed=seed + i,
            )
            for i, prompt in enumerate(prompts)
        ]


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
) -> None:
    """Append the answers to `path` and print them."""
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
        when = "before training" if step == 0 else f"after {step} steps"
        reporter.say(f"── sample {sample.id}, {when}")
        reporter.say(f"   prompt    {_shortened(sample.prompt, from_end=True)}")
        reporter.say(f"   expected  {_shortened(sample.expected)}")
        reporter.say(f"   answer    {_shortened(sample.answer)}")


def _shortened(text: str, *, from_end: bool = False) -> str:
    line = text.replace("\n", "⏎")
    if len(line) <= SHOWN:
        return line
    return f"… {line[-SHOWN:]}" if from_end else f"{line[:SHOWN]} …"
