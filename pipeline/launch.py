"""Starting the trainer, a program of its own that only reads what a build left on disk: alone, or once per GPU."""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

SHUTDOWN_SECONDS: Final = 600
"""How long torchrun waits for ranks that it has asked to end: they finish their step and save first."""


def trainer_command(options: argparse.Namespace) -> list[str]:
    """Return the command that `chatloom train` stands for."""
    command = [sys.executable, "-m"]
    if options.gpus > 1:
        command += ["trainer.ranks", "--standalone", f"--nproc-per-node={options.gpus}", "-m"]
    command += ["trainer", options.config]
    command += ["--run-dir", options.run] if options.run else []  # torchrun has a --run of its own
    for assignment in options.set:
        command += ["--set", assignment]
    return command + [flag for flag, on in (("--fresh", options.fresh), ("--dry-run", options.dry_run)) if on]


def resume_command(options: argparse.Namespace) -> str:
    """Return what a person types to go on, in a form that works from where they stand."""
    words = [_chatloom(), "train", options.config]
    words += ["--run", options.run] if options.run else []
    words += ["--gpus", str(options.gpus)] if options.gpus > 1 else []
    for assignment in options.set:
        words += ["--set", assignment]
    return shlex.join(words)


def _chatloom() -> str:
    if shutil.which("chatloom"):
        return "chatloom"
    beside = Path(sys.executable).parent / "chatloom"
    # `make train` runs .venv/bin/chatloom, which need not be on PATH
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def train(options: argparse.Namespace) -> int:
    """Run the trainer and return its exit code; with one process it takes the place of this one."""
    environment = os.environ | {
        "CHATLOOM_RESUME": resume_command(options),
        # an option of torchrun too, but one that older versions do not know, while they pass over a variable
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
    }
    command = trainer_command(options)
    if options.gpus == 1:
        os.execve(sys.executable, command, environment)  # noqa: S606 - signals and terminal are then the trainer's own
    return _watched(command, environment)


def _watched(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run torchrun until its ranks have ended, and pass on to them that somebody wants to stop.

    The ranks get the signal, not torchrun, which would report it as a crash, with a traceback. They agree on a step, save
    and end as if done; rank 0 says how to go on. A second Ctrl-C ends them at once.
    """
    asked: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        asked.append(number)
        ranks = children(child.pid)
        if not ranks:  # not started yet, or a system that does not list them
            child.send_signal(number)
        for rank in ranks:
            os.kill(rank, signal.SIGKILL if asked.count(signal.SIGINT) > 1 else number)

    # its own process group: the terminal's Ctrl-C comes here alone
    with subprocess.Popen(command, env=environment, process_group=0) as child:
        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if signal.SIGINT in asked:
        return 130
    return code if code >= 0 else 128 - code


def children(parent: int) -> list[int]:
    """Return the processes that `parent` has started, by Linux's process table; none where there is no such table."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state ppid; the name may hold spaces and brackets
            after = entry.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(after[1]) == parent:
            found.append(int(entry.parent.name))
    return found
