"""Processes of the trainer that start at once: forked from a server that has imported torch, and has done nothing else.

They are real: they can be killed, they hold locks, and ranks meet through gloo, as they do under torchrun.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["trainer.loop", "trainer.report.preview", "tests.trainer.conftest"])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(
    do: Callable[..., object], *arguments: object, log: Path, world: int = 1, more: dict[str, str] | None = None
) -> list[ForkServerProcess]:
    """Start do(*arguments) once per rank; what they print goes to the file `log`. What is returned is its exit code."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)} | (more or {})
    shared |= {"LOCAL_WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    started = []
    for rank in range(world):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = SERVER.Process(target=_be, args=(do, arguments, environment if world > 1 or more else shared, log))
        process.start()
        started.append(process)
    return started


def train(*words: object) -> int:
    """Be the command `python -m trainer`."""
    from trainer.entry import main

    return main([str(word) for word in words])


def joined(processes: Sequence[ForkServerProcess], log: Path, *, seconds: float = 120.0) -> str:
    """Wait for processes, which must all end with 0; return what they printed."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.exitcode is None:
            process.kill()
    text = log.read_text()
    assert codes == [0] * len(codes), f"exit codes {codes}\n{text}"
    return text


def _be(do: Callable[..., object], arguments: tuple[object, ...], environment: dict[str, str], log: Path) -> None:
    os.chdir(REPOSITORY)
    os.environ.update(environment)
    with log.open("ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    code = do(*arguments)
    sys.stdout.flush()
    sys.exit(code if isinstance(code, int) else 0)
