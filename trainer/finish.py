"""What happens to a trained model: it answers, proves that it can stop, and is exported, whole or as adapters."""

from typing import Final

import msgspec

from schemas.files import write_whole
from trainer.adapter import write_adapter
from trainer.checkpoint import State, at_step, problem_of
from trainer.data.inputs import Inputs
from trainer.errors import DataError, storing
from trainer.export import export
from trainer.frozen import widen
from trainer.held_out import require_stops, show_samples
from trainer.job import Job
from trainer.model.decoder import Decoder
from trainer.report.console import Reporter
from trainer.start import Start
from trainer.step import Precision
from trainer.stored import put_weights

MODEL: Final = "export/model.safetensors"
ADAPTER: Final = "adapter/adapter_model.safetensors"


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """RUN/train/exported.json: which weights lie in RUN/train/export and RUN/train/adapter."""

    step: int
    """Steps that were done when it was written."""
    dtype: str
    weights_of: int
    """Steps after which the model had these weights."""
    files: tuple[str, ...]
    """Weights that were written, relative to RUN/train."""


def finish(job: Job, inputs: Inputs, start: Start, state: State, precision: Precision, reporter: Reporter) -> None:
    """Show the samples once more, and export. Raises DataError, ExportRefused and StorageError."""
    model = start.model
    answers = show_samples(job, inputs, model, state.n_steps, precision, reporter, in_full=True)
    if answers and not any(answer.is_stopped for answer in answers):
        reporter.say(f"warning: every sample ran to its limit of {job.generation.max_new_tokens} tokens without ending")
    weights_of = _take_best(job, state, model, reporter)
    if not job.train.export_unless_stopping:
        require_stops(job, inputs, model, precision, reporter)
    # wide, and merged, it could be too large for the GPU on which it was narrow
    model.to("cpu")
    widen(model, start.narrowed)
    files = _write(job, inputs, start, reporter)
    with storing(job.results):
        done = Exported(step=state.n_steps, dtype=job.train.export_dtype, weights_of=weights_of, files=files)
        write_whole(job.results / "exported.json", msgspec.json.encode(done) + b"\n")


def _take_best(job: Job, state: State, model: Decoder, reporter: Reporter) -> int:
    """Give `model` the weights that are to be exported, and return the steps after which it had them. Raises DataError."""
    best = state.best_step
    if job.train.export_weights == "last" or best is None or best == state.n_steps:
        return state.n_steps
    path = at_step(job.home / "checkpoints", best)
    if problem := problem_of(path):
        raise DataError(
            f"{path}: {problem}, and these are the best weights, which were to be exported. Restore it from a backup, or take "
            "the last ones: --set train.export_weights=last"
        )
    put_weights(model, path / "model.safetensors")
    reporter.say(f"the weights after {best} steps are exported, whose validation loss was the lowest")
    return best


def _write(job: Job, inputs: Inputs, start: Start, reporter: Reporter) -> tuple[str, ...]:
    """Write the model, its adapters, or both, and return the files of weights. Raises StorageError."""
    files: list[str] = []
    if job.lora.rank:
        path = job.results / "adapter"
        with storing(path):
            why = write_adapter(
                path, start.model, job.lora, base=start.base, revision=start.revision, assets=inputs.assets
            )
        if why is None:
            files.append(ADAPTER)
        reporter.say(f"adapters alone written to {path} (PEFT)" if why is None else f"no adapters alone: {why}")
    if job.lora.rank == 0 or job.lora.merge:
        path = job.results / "export"
        with storing(path):
            export(path, start.model, assets=inputs.assets, generation=inputs.generation, dtype=job.train.export_dtype)
        files.append(MODEL)
        reporter.say(f"exported to {path} (transformers: AutoModelForCausalLM.from_pretrained({str(path)!r}))")
    return tuple(files)


def is_exported(job: Job, *, step: int, best: int | None = None) -> bool:
    """Tell whether what `job` asks for lies there, written after `step` steps; the best weights are those after `best`."""
    try:
        done = msgspec.json.decode((job.results / "exported.json").read_bytes(), type=Exported)
    except (OSError, msgspec.DecodeError):
        return False
    # of runs that were made longer, or of which something else was asked for afterwards, they are others
    weights_of = step if job.train.export_weights == "last" or best is None else best
    is_same = (done.step, done.dtype, done.weights_of) == (step, job.train.export_dtype, weights_of)
    # whole models have adapters beside them only where PEFT has a form for those
    is_wanted = (MODEL if job.lora.rank == 0 or job.lora.merge else ADAPTER) in done.files
    return is_same and is_wanted and all((job.results / name).is_file() for name in done.files)
