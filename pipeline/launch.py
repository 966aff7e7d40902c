"""Starting the trainer, a program of its own that only reads what a build left on disk: alone, or once per GPU."""

import argparse
import contextlib
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

SHUTDOWN_SECONDS: Final = 600
"""How long torchrun waits for ranks that it has asked to end: they finish their step and save first."""

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C."""

MOMENT: Final = 0.05
"""Seconds between two looks at whether somebody wants to stop."""

PATIENCE: Final = 1.0
"""Seconds without any rank after which torchrun itself is told: it is still starting, or nobody can say what it runs."""


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
    words += ["--restarts", str(options.restarts)] if options.restarts else []
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
    """Run the trainer and return its exit code; with one process and no restarts it takes the place of this one."""
    environment = os.environ | {
        "CHATLOOM_RESUME": resume_command(options),
        # the same for all starts of this one command, of which --fresh empties the run once
        "CHATLOOM_START": secrets.token_hex(8),
        # an option of torchrun too, but one that older versions do not know, while they pass over a variable
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
    }
    command = trainer_command(options)
    if options.gpus == 1 and options.restarts == 0:
        os.execve(sys.executable, command, environment)  # noqa: S606 - signals and terminal are then the trainer's own
    # by which those that it starts see that it is gone, killed perhaps, and end too
    environment["CHATLOOM_WATCHER"] = str(os.getpid())
    return _watched(command, environment, restarts=options.restarts, is_alone=options.gpus == 1)


def has_crashed(code: int) -> bool:
    """Tell whether a trainer that ended with `code` died, rather than said what a person must change (2 to 4, 75)."""
    return code == 1 or (code > 128 and code != INTERRUPTED)


def _watched(
    command: Sequence[str], environment: Mapping[str, str], *, restarts: int = 0, is_alone: bool = False
) -> int:
    """Run a trainer, again after up to `restarts` crashes, and pass on to it that somebody wants to stop.

    A restart goes on from the newest checkpoint. Return the exit code of the last; `is_alone` says that it is one process and
    not torchrun.
    """
    asked: list[int] = []
    before = {n: signal.signal(n, lambda number, _: asked.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        for n_done in range(restarts + 1):
            code = _run(command, environment, asked, is_alone=is_alone)
            if asked or n_done == restarts or not has_crashed(code):
                break
            sys.stderr.write(f"the trainer ended with code {code}; starting it again ({n_done + 1} of {restarts})\n")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return INTERRUPTED if signal.SIGINT in asked else code


def _run(command: Sequence[str], environment: Mapping[str, str], asked: Sequence[int], *, is_alone: bool) -> int:
    """Run a trainer once; what is added to `asked` are signals for it. Return its exit code.

    The ranks get a signal, each once, and not torchrun, which would report it as a crash; it gets one only where there
    are no ranks yet, or no table of processes. The ranks agree on a step, save and end as if done; rank 0 says how to go
    on. A second Ctrl-C ends them at once.
    """
    told: set[int] = set()
    alone = 0.0
    young: set[int] = set()
    # its own process group: the terminal's Ctrl-C comes here alone
    with subprocess.Popen(command, env=environment, process_group=0) as child:
        while (code := _ended(child)) is None:
            if not asked:
                continue
            ranks = {child.pid} if is_alone else set(children(child.pid))
            alone = 0.0 if ranks or told else alone + MOMENT
            # a process that has only just been forked would lose the signal; one that ends anyway needs none
            for process in ({child.pid} if alone > PATIENCE else ranks & young) - told:
                _send(process, asked[0])
                told.add(process)
            if asked.count(signal.SIGINT) > 1:
                for rank in ranks:
                    _send(rank, signal.SIGKILL)
            young = ranks
    return code if code >= 0 else 128 - code


def _ended(child: subprocess.Popen[bytes]) -> int | None:
    """Return the exit code of `child` once it has ended; None after a moment in which it has not."""
    try:
        return child.wait(MOMENT)
    except subprocess.TimeoutExpired:
        return None


def _send(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(process, number)


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
