"""Processes of the trainer that start at once: forked from a server that has imported torch, and has done nothing else.

They are real: they can be killed, they hold locks, and ranks meet through gloo, as they do under torchrun.
"""

import contextlib
import multiprocessing
import os
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch

REPOSITORY = Path(__file__).parents[2]
SERVER = multiprocessing.get_context("forkserver")
# torch imports its compiler when it makes an optimizer: most of what a short training would cost
SERVER.set_forkserver_preload(["trainer.loop", "trainer.report.preview", "torch._dynamo", "tests.trainer.conftest"])


@dataclass(frozen=True)
class Done:
    """How processes ended: the exit code of each rank, and what they printed."""

    codes: list[int]
    out: str
    err: str


class Ranks:
    """Processes that were started together."""

    def __init__(self, do: Callable[..., object], *arguments: object, world: int = 1) -> None:
        # a directory of the system's own: one of a test's would count as something that the trainer wrote
        self._home = Path(tempfile.mkdtemp(prefix="ranks-"))
        self.out, self.err = self._home / "out", self._home / "err"
        # one thread per process whatever the world, so that equal worlds are bit-identical
        environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
        # bound and not listened to, so that no other process is given the port before the first rank listens there
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if world > 1:
            self._port.bind(("127.0.0.1", 0))
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._port.getsockname()[1])}
            environment |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        self.processes: list[ForkServerProcess] = []
        for rank in range(world):
            own = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {})
            process = SERVER.Process(target=_be, args=(do, arguments, own, self.out, self.err))
            process.start()
            self.processes.append(process)

    def send(self, number: int, rank: int = 0) -> None:
        """Send a signal; a process that has ended before it came is let rest."""
        pid = self.processes[rank].pid
        assert pid is not None
        # the server has buried the process as soon as it ended, and may not yet have said so
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def wait_for(self, is_so: Callable[[], bool], *, seconds: float = 120.0) -> None:
        """Wait until something is so, which it must become while the processes live."""
        until = time.monotonic() + seconds
        while not is_so():
            alive = all(process.is_alive() for process in self.processes)
            if not alive or time.monotonic() > until:
                raise AssertionError(f"it did not come to that: {self.wait()}")
            time.sleep(0.002)

    def wait(self, *, seconds: float = 120.0) -> Done:
        """Wait until every process has ended; one that has not after `seconds` is killed, and that fails the test."""
        until = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, until - time.monotonic()))
        hanging = [process for process in self.processes if process.exitcode is None]
        for process in hanging:
            process.kill()
            process.join()
        done = Done([process.exitcode or 0 for process in self.processes], _text(self.out), _text(self.err))
        shutil.rmtree(self._home)
        self._port.close()
        assert not hanging, f"{len(hanging)} processes hung: {done}"
        return done


def train(*words: object, world: int = 1) -> Ranks:
    """Start the command `python -m trainer`, once per rank."""
    return Ranks(_trainer, *(str(word) for word in words), world=world)


def completed(ranks: Ranks) -> Done:
    """Return how `ranks` ended, which must be well."""
    done = ranks.wait()
    assert set(done.codes) == {0}, done
    return done


def _trainer(*words: str) -> int:
    from trainer.entry import main

    return main(words)


def _be(do: Callable[..., object], arguments: Sequence[object], environment: dict[str, str], *streams: Path) -> None:
    os.chdir(REPOSITORY)
    os.environ.update(environment)
    torch.set_num_threads(1)  # the server may have been started with another number in its environment
    for number, path in zip((1, 2), streams, strict=True):
        with path.open("ab", buffering=0) as stream:
            os.dup2(stream.fileno(), number)
    try:
        code = do(*arguments)
    except Exception:  # noqa: BLE001 - as an interpreter ends
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code if isinstance(code, int) else 0)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
