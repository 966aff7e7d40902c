"""The command line of the trainer. torch is imported only once the arguments and the config are known to be good."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.errors import UserError
from schemas.settings import ConfigError
from trainer.built import other_settings
from trainer.errors import Diverged, Elsewhere, StorageError
from trainer.job import Job, read_job
from trainer.signals import Stop, catching

if TYPE_CHECKING:
    from trainer.report.console import Reporter
    from trainer.world import World

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, as of any command: so `make train && deploy` does not go on with half a model."""
EXAMPLES = """\
examples:
  python -m trainer                                    the quick start, on this machine's CPU or GPU
  python -m trainer configs/sft.toml --dry-run         what it would do: parameters, steps, tokens
  python -m trainer configs/sft.toml --set train.lr=1e-4 --set train.steps=500
  torchrun --nproc-per-node 2 -m trainer configs/sft.toml

Stopped runs continue by themselves: give the same command again. Ctrl-C and SIGTERM stop at the end of the current
step, save, and print that command. Results: RUN/train/{metrics.jsonl, samples.jsonl, checkpoints/, export/}.
exit codes: 0 done, or stopped by SIGTERM; 130 stopped by Ctrl-C; 2 the command or config must change; 3 data or
checkpoints are missing or unusable; 4 disk; 75 the run is in use. (torchrun has exit codes of its own.)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trainer and return its exit code."""
    options = _parser().parse_args(arguments)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    is_first = os.environ.get("RANK", "0") == "0"
    try:
        job = read_job(options.config, run=options.run, overrides=options.overrides, world_size=world_size)
        if is_first and (note := other_settings(options.config, options.overrides, job.run)) is not None:
            sys.stderr.write(f"{note}\n")
        with catching(may_insist=world_size == 1, parent=_guardian(world_size)) as stop:
            is_done = _run(job, stop, fresh=options.fresh, dry_run=options.dry_run)
        # torchrun takes anything but 0 for a crash, which it reports at length
        return INTERRUPTED if stop.signal == signal.SIGINT and not is_done and world_size == 1 else 0
    except Elsewhere as error:
        return error.exit_code
    except (ConfigError, Diverged) as error:  # every rank has these
        if is_first:
            _complain(str(error))
        return error.exit_code
    except UserError as error:
        _complain(str(error))
        return error.exit_code
    except OSError as error:
        _complain(str(error))
        return StorageError.exit_code
    except KeyboardInterrupt:
        _complain("interrupted; the newest checkpoint is kept, give the same command to continue")
        return INTERRUPTED


def _run(job: Job, stop: Stop, *, fresh: bool, dry_run: bool) -> bool:
    """Do what was asked and return whether nothing is left to do."""
    from trainer.loop import fit
    from trainer.report.console import Reporter
    from trainer.world import joined

    with joined() as world:
        reporter = Reporter(is_silent=not world.is_first)
        if dry_run:
            _preview(job, world, reporter)
            return True
        return fit(job, world, reporter, stop, fresh=fresh)


def _guardian(world_size: int) -> int | None:
    """Return the process without which this one is to stop: torchrun's for a rank, or the `chatloom train` that restarts it."""
    if world_size > 1:
        return os.getppid()
    watcher = os.environ.get("CHATLOOM_WATCHER")
    return None if watcher is None else int(watcher)


def _preview(job: Job, world: "World", reporter: "Reporter") -> None:
    from trainer.phases import foreseen
    from trainer.report.preview import preview
    from trainer.start import with_local_model

    for one in foreseen(job):
        if one.phase is not None:
            reporter.say(f"phase {one.phase}")
        reporter.say(preview(with_local_model(one, world), world))


def _complain(text: str) -> None:
    sys.stderr.write(f"error: {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Fine-tune a model on the packed shards of a run that `make data` has finished.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        type=Path,
        default=Path("configs/tiny.toml"),
        help="TOML file; [model] says what is trained, [train] how, `run` where the data is (default: %(default)s)",
    )
    parser.add_argument(
        "--run",
        "--run-dir",  # torchrun takes --run for the beginning of a switch of its own
        dest="run",
        metavar="DIR",
        type=Path,
        help="run directory, instead of the config's `run`; under torchrun write --run-dir",
    )
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        action="append",
        default=[],
        help="change one value of the config, for example train.lr=1e-4; may be given many times",
    )
    parser.add_argument("--fresh", action="store_true", help="remove RUN/train and start from the first step")
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained, and stop")
    return parser
