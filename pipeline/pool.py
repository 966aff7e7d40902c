"""Shard tasks on the cores of this machine: in this process when there is little to do, else in spawned workers."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_sentinel
from pathlib import Path
from typing import Final

from pipeline.execute import Settings, Timing, run_shard
from pipeline.graph import by_name
from pipeline.plan import Task
from pipeline.store import Store
from schemas.manifest import ShardRecord

ENOUGH_BYTES: Final = 12 << 20
"""Input from which starting worker processes (about a second) pays."""

Result = tuple[Task, dict[str, ShardRecord], list[Timing]]


class WorkerDiedError(RuntimeError):
    """A worker process ended without a word: killed for memory, or a crash in native code."""


_worker: tuple[Store, Settings] | None = None


def run_tasks(
    store: Store, stage_names: Sequence[str], settings: Settings, tasks: Sequence[Task], workers: int
) -> Generator[Result, None, None]:
    """Yield each task's result as it is done, in any order; what comes out on disk does not depend on the order.

    Raises WorkerDiedError, naming the shards that were in work, when a worker process dies.
    """
    size = sum(task.chunk.end - task.chunk.start for task in tasks)
    if workers == 1 or len(tasks) < 2 or size < ENOUGH_BYTES:
        stages = [by_name(name) for name in stage_names]
        for task in tasks:
            yield task, *run_shard(store, stages, settings, task)
        return
    with _worker_environment(workers):
        # spawn: a forked child of a process that has run a Polars query hangs
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            min(workers, len(tasks)), mp_context=context, initializer=_start, initargs=(store.root, settings)
        )
        try:
            yield from _collect(pool, tuple(stage_names), tasks, workers)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise
        pool.shutdown()


def _collect(
    pool: ProcessPoolExecutor, names: tuple[str, ...], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    waiting = list(reversed(tasks))
    running: dict[Future[tuple[dict[str, ShardRecord], list[Timing]]], Task] = {}
    while waiting or running:
        # One task a worker and one in hand: a queue of many thousand would only hold memory.
        while waiting and len(running) < 2 * workers:
            task = waiting.pop()
            running[pool.submit(_run, names, task)] = task
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            task = running.pop(future)
            try:
                records, timings = future.result()
            except BrokenProcessPool:
                shards = sorted({task.shard, *(other.shard for other in running.values())})
                raise WorkerDiedError(
                    f"a worker process died while working on shard(s) {shards} (killed for memory, or a crash in native "
                    "code). What is committed is kept. Try --workers 1, or a smaller [source] shard_bytes"
                ) from None
            yield task, records, timings


def _start(root: Path, settings: Settings) -> None:
    global _worker
    _worker = Store(root), settings
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_sentinel([parent.sentinel])
        os._exit(1)


def _run(names: tuple[str, ...], task: Task) -> tuple[dict[str, ShardRecord], list[Timing]]:
    assert _worker is not None
    store, settings = _worker
    return run_shard(store, [by_name(name) for name in names], settings, task)


@contextlib.contextmanager
def _worker_environment(workers: int) -> Iterator[None]:
    """Give each worker its share of the cores: libraries that start threads read these when they load."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    names = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ARROW_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, threads) | {"TOKENIZERS_PARALLELISM": "false"})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
