"""What a model is asked while it trains and at the end: held-out prompts, and whether it can end its answers."""

from collections.abc import Sequence
from typing import Final

from schemas.generation import Generation
from schemas.settings import ConfigError
from trainer.answers.desk import Answer
from trainer.answers.generate import Prompt, held_out_prompts
from trainer.answers.samples import answer_all, is_ended, write_samples
from trainer.data.inputs import Inputs
from trainer.errors import ExportRefused, storing
from trainer.job import Job
from trainer.model.decoder import Decoder
from trainer.report.console import Reporter
from trainer.step import Precision

SMOKE_PROMPTS: Final = 8
"""Prompts that are answered, at temperature 1, before an export; half of the answers must end."""
SMOKE_TOKENS: Final = 512
"""How long such an answer may become."""


def check_prompts(job: Job, inputs: Inputs, model: Decoder) -> None:
    """Raise ConfigError when no sample could be drawn, or no stop be tested, after a whole training run."""
    room = model.architecture.max_position_embeddings
    if job.train.n_samples and job.generation.max_new_tokens >= room:
        raise ConfigError(
            f"[generation] max_new_tokens = {job.generation.max_new_tokens} leaves no room for a prompt: the model is made for "
            f"{room} tokens in all (max_position_embeddings); expected less"
        )
    if not job.train.export_unless_stopping and not _smoke_prompts(job, inputs, model):
        raise ConfigError(
            f"{job.data / 'pack'}: no conversation has a trained turn after at most {_longest_smoke(room)} tokens, so it "
            "could not be tested whether the model ends its answers. Raise max_position_embeddings, or give "
            "--set train.export_unless_stopping=true to export without the test"
        )


def show_samples(
    job: Job,
    inputs: Inputs,
    model: Decoder,
    n_steps: int,
    precision: Precision,
    reporter: Reporter,
    *,
    in_full: bool = False,
) -> list[Answer]:
    """Answer the held-out prompts, print and record them, and return the answers.

    Before training, and where it is asked for `in_full`, prompt and expectation are printed too; else a line each.
    """
    longest = max(1, model.architecture.max_position_embeddings - job.generation.max_new_tokens)
    split, prompts = _prompts(job, inputs, job.train.n_samples, longest=longest)
    answers = answer_all(
        model,
        prompts,
        settings=job.generation,
        stop_ids=inputs.generation.stop_ids(),
        seed=job.seed,
        precision=precision,
    )
    path = job.home / "samples.jsonl"
    with storing(path):
        write_samples(
            path,
            inputs.tokenizer,
            prompts,
            answers,
            step=n_steps,
            split=split,
            reporter=reporter,
            in_full=in_full or n_steps == 0,
        )
    return answers


def _prompts(job: Job, inputs: Inputs, n: int, *, longest: int) -> tuple[str, list[Prompt]]:
    # without a validation split a trained prompt still shows the difference; the record says where it is from
    split, packs = ("validation", inputs.validation) if len(inputs.validation) else ("train", inputs.packs)
    return split, held_out_prompts(packs, n, seed=job.seed, longest=longest) if n else []


def _longest_smoke(room: int) -> int:
    return max(room - SMOKE_TOKENS, room // 2)


def _smoke_prompts(job: Job, inputs: Inputs, model: Decoder) -> Sequence[Prompt]:
    longest = _longest_smoke(model.architecture.max_position_embeddings)
    return _prompts(job, inputs, SMOKE_PROMPTS, longest=longest)[1]


def require_stops(job: Job, inputs: Inputs, model: Decoder, precision: Precision, reporter: Reporter) -> None:
    """Raise ExportRefused unless half of the answers, drawn at temperature 1 and given room, say something and end."""
    prompts = _smoke_prompts(job, inputs, model)
    stop_ids = inputs.generation.stop_ids()
    settings = Generation(max_new_tokens=SMOKE_TOKENS, temperature=1.0, batch=SMOKE_PROMPTS)
    answers = answer_all(model, prompts, settings=settings, stop_ids=stop_ids, seed=job.seed, precision=precision)
    n_ended = sum(is_ended(inputs.tokenizer, answer) for answer in answers)
    text = f"{n_ended} of {len(answers)} test answers said something and ended on a stop token"
    if 2 * n_ended >= len(answers) > 0:
        reporter.say(text)
        return
    raise ExportRefused(
        f"{job.results / 'export'}: not written, because only {text} ({', '.join(map(str, sorted(stop_ids)))}) within "
        f"{SMOKE_TOKENS} tokens; at least half must, or the model, served, would not end its answers. The checkpoint is "
        "kept. Train longer, or see with `chatloom look RUN mask` that stop tokens are trained; "
        "--set train.export_unless_stopping=true exports it as it is."
    )
