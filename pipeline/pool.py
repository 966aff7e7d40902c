"""Tasks on the cores of this machine: in this process when there is little to do, else in spawned workers."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pipeline.corpus import CorpusTask, Watch, run_corpus
from pipeline.execute import Settings, Timing, run_empty, run_shard
from pipeline.graph import by_name
from pipeline.lean import KEPT_MEMORY, leave_out
from pipeline.plan import Task
from pipeline.store import Store
from schemas.errors import UserError
from schemas.manifest import ShardRecord

ENOUGH_BYTES: Final = 12 << 20
"""Input from which starting worker processes (about a second) pays."""

_LOOK_SECONDS: Final = 0.3

Done = tuple[dict[str, ShardRecord], list[Timing]]
_Reading = Any
"""Three numbers in memory that workers share: how many shards there are of what a corpus stage reads, which of the things that
it reads this is, and how many of them it has read. The last is written last, and tells that there is something new."""


class WorkerDiedError(UserError):
    """A worker process ended without a word: killed for memory, or a crash in native code."""

    exit_code = 4


class Workers:
    """Runs tasks; worker processes start with the first one that needs them and live until the end of the build."""

    def __init__(self, store: Store, settings: Settings, n_workers: int) -> None:
        self._store, self._settings, self._n_workers = store, settings, n_workers
        self._pool: ProcessPoolExecutor | None = None
        self._reading: _Reading = (0, 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())  # shutdown forgets them
        if kind is not None:  # what they were at is not committed, and will be done again
            for process in processes:
                process.terminate()
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
        for process in processes:  # none may outlive the lock that this build holds
            process.join()

    def run(self, stage_names: Sequence[str], tasks: Sequence[Task]) -> Generator[tuple[Task, Done], None, None]:
        """Yield each task's result as it is done, in any order; what comes out on disk does not depend on the order.

        Raises WorkerDiedError, naming the shards that were in work, when a worker process dies.
        """
        size = sum(task.chunk.end - task.chunk.start for task in tasks)
        if self._pool is None and (self._n_workers == 1 or len(tasks) < 2 or size < ENOUGH_BYTES):
            stages = [by_name(name) for name in stage_names]
            for task in tasks:
                yield task, run_shard(self._store, stages, self._settings, task)
            return
        pool, names = self._started(), tuple(stage_names)
        waiting = list(reversed(tasks))
        running: dict[Future[Done], Task] = {}
        while waiting or running:
            # One task a worker and one in hand: a queue of many thousand would only hold memory.
            while waiting and len(running) < 2 * self._n_workers:
                task = waiting.pop()
                with _explained([task, *running.values()]):
                    running[pool.submit(_run_shard, names, task)] = task
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task = running.pop(future)
                with _explained([task, *running.values()]):
                    result = future.result()
                yield task, result

    def run_corpus(
        self, name: str, task: CorpusTask, *, then: Sequence[str], watch: Watch
    ) -> tuple[list[ShardRecord], list[Timing]]:
        """Run a corpus stage; workers that would be idle meanwhile get ready for the stages `then`."""
        if self._pool is None:
            return run_corpus(self._store, by_name(name), self._settings, task, watch)
        with _explained([]):
            future = self._pool.submit(_run_corpus, name, task)
            for _ in range(self._n_workers - 1):
                self._pool.submit(_get_ready, tuple(then))
            before = 0
            while True:
                waiting = wait([future], timeout=_LOOK_SECONDS).not_done
                n_shards, which, n_read = self._reading
                if n_read != before:
                    watch(task.names[which], n_read, n_shards)
                before = n_read
                if not waiting:
                    return future.result()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: a forked child of a process that has run a Polars query hangs
            context = multiprocessing.get_context("spawn")
            self._reading = context.RawArray("q", 3)
            self._pool = ProcessPoolExecutor(
                self._n_workers,
                mp_context=context,
                initializer=_start,
                initargs=(self._store.root, self._settings, self._reading),
            )
            with _worker_environment(self._n_workers):
                for _ in range(self._n_workers):  # the executor starts one process per submitted task
                    self._pool.submit(_get_ready, ())
        return self._pool


@contextlib.contextmanager
def _explained(tasks: Sequence[Task]) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        shards = f" while working on shard(s) {sorted(task.shard for task in tasks)}" if tasks else ""
        raise WorkerDiedError(
            f"a worker process died{shards} (killed for memory, or a crash in native code). What is committed is kept. "
            "Try --workers 1, or a smaller [source] shard_bytes"
        ) from None


_worker: tuple[Store, Settings, _Reading] | None = None


def _start(root: Path, settings: Settings, reading: _Reading) -> None:
    global _worker  # what a worker needs for all its tasks is sent to it once
    _worker = Store(root), settings, reading
    leave_out()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the builder decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    gc.freeze()  # what is loaded by now stays; collections need not look at it again


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_sentinel([parent.sentinel])
        os._exit(1)


def _mine() -> tuple[Store, Settings, _Reading]:
    assert _worker is not None
    return _worker


def _run_shard(names: tuple[str, ...], task: Task) -> Done:
    store, settings, _ = _mine()
    return run_shard(store, [by_name(name) for name in names], settings, task)


def _run_corpus(name: str, task: CorpusTask) -> tuple[list[ShardRecord], list[Timing]]:
    store, settings, reading = _mine()

    def watch(read: str, n_read: int, n_shards: int) -> None:
        reading[:] = n_shards, task.names.index(read), n_read

    return run_corpus(store, by_name(name), settings, task, watch)


def _get_ready(names: tuple[str, ...]) -> None:
    _, settings, _ = _mine()
    run_empty([by_name(name) for name in names], settings)


@contextlib.contextmanager
def _worker_environment(n_workers: int) -> Iterator[None]:
    """Give each worker its share of cores and memory: libraries and the allocator read these when they load."""
    threads = str(max(1, (os.cpu_count() or 1) // n_workers))
    names = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ARROW_NUM_THREADS")
    wanted = dict.fromkeys(names, threads) | {
        "TOKENIZERS_PARALLELISM": "false",
        # Buffers of a shard go back to the system when it is done, instead of to a pool for each thread that ever ran.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "2",
        **KEPT_MEMORY,
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
