"""What happens to a trained model: it answers, proves that it can stop, and is exported."""

from trainer.checkpoint import State
from trainer.console import Reporter
from trainer.errors import ExportRefused
from trainer.export import export
from trainer.generate import Answer, Prompt, held_out_prompts
from trainer.inputs import Inputs
from trainer.job import Job
from trainer.model import Decoder
from trainer.samples import answer_all, write_samples
from trainer.step import Precision

SMOKE_PROMPTS = 8
"""Prompts that are answered, at temperature 1, when none of the samples has stopped."""
SMOKE_TOKENS = 512
"""How long such an answer may become."""


def finish(job: Job, inputs: Inputs, model: Decoder, state: State, precision: Precision, reporter: Reporter) -> None:
    """Show the samples once more, say what was reached, and export. Raises ExportRefused."""
    answers = show_samples(job, inputs, model, state.n_steps, precision, reporter)
    if state.val_loss is not None:
        start = f"{state.first_val_loss:.4f}" if state.first_val_loss is not None else "?"
        reporter.say(f"validation loss: {start} before training, {state.val_loss:.4f} after {state.n_steps} steps")
    speed = state.tokens / state.seconds if state.seconds else 0.0
    reporter.say(f"{state.tokens:,} tokens, {state.supervised:,} of them trained, {speed:,.0f} tok/s")
    if not job.train.export_unless_stopping and not any(answer.is_stopped for answer in answers):
        _require_a_stop(job, inputs, model, precision)
    path = job.home / "export"
    export(path, model, run=job.run, generation=inputs.generation, dtype=job.train.export_dtype)
    reporter.say(f"exported to {path} (transformers: AutoModelForCausalLM.from_pretrained({str(path)!r}))")


def show_samples(
    job: Job, inputs: Inputs, model: Decoder, n_steps: int, precision: Precision, reporter: Reporter
) -> list[Answer]:
    """Answer the held-out prompts, print and record them, and return the answers."""
    train = job.train
    split, prompts = _prompts(job, inputs, model, train.n_samples)
    answers = answer_all(
        model,
        prompts,
        stop_ids=inputs.generation.stop_ids(),
        seed=job.seed,
        precision=precision,
        temperature=train.temperature,
        limit=train.max_new_tokens,
    )
    path = job.home / "samples.jsonl"
    write_samples(path, inputs.tokenizer, prompts, answers, step=n_steps, split=split, reporter=reporter)
    return answers


def _prompts(job: Job, inputs: Inputs, model: Decoder, n: int) -> tuple[str, list[Prompt]]:
    # without a validation split a trained prompt still shows the difference; the record says where it is from
    split, packs = ("validation", inputs.validation) if len(inputs.validation) else ("train", inputs.packs)
    longest = max(1, model.architecture.max_position_embeddings - job.train.max_new_tokens)
    return split, held_out_prompts(packs, n, seed=job.seed, longest=longest) if n else []


def _require_a_stop(job: Job, inputs: Inputs, model: Decoder, precision: Precision) -> None:
    """Raise ExportRefused when no answer, drawn at temperature 1 and given room, ends on a stop token."""
    _, prompts = _prompts(job, inputs, model, SMOKE_PROMPTS)
    stop_ids = inputs.generation.stop_ids()
    for i, prompt in enumerate(prompts):
        answers = answer_all(
            model,
            [prompt],
            stop_ids=stop_ids,
            seed=job.seed + i,
            precision=precision,
            temperature=1.0,
            limit=SMOKE_TOKENS,
        )
        if answers[0].is_stopped:
            return
    raise ExportRefused(
        f"{job.home / 'export'}: not written, because none of {len(prompts)} answers of up to {SMOKE_TOKENS} tokens "
        f"ended on a stop token ({', '.join(map(str, sorted(stop_ids)))}): served, it would never end an answer. "
        "The checkpoint is kept. Train longer, or check that stop tokens are trained (the mask report of `make data`); "
        "--set train.export_unless_stopping=true exports it as it is."
    )
