"""Batches read ahead of their use, where a device computes meanwhile; and what becomes of one that cannot be read."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any, Final, Generic, TypeVar

import torch
from torch import Tensor

from trainer.data.packs import nothing
from trainer.errors import DataError
from trainer.model.decoder import Batch
from trainer.world import World

Item = TypeVar("Item")
AHEAD: Final = 2
"""Batches that are read, or being read, and not yet taken."""


class ReadAhead(Generic[Item]):
    """The batches of `items`, which may be without end, in their order.

    For an accelerator one thread reads AHEAD of them while it computes, into page-locked memory, so that their copy to it
    is queued without waiting. For a CPU each is read when it is taken: a thread would compute in the model's place. `read`
    is called for one item after the other, in order, so it must not depend on how far training has come. The thread
    ends with `close`, and with the interpreter.
    """

    def __init__(self, read: Callable[[Item], Batch], items: Iterable[Item], *, device: torch.device) -> None:
        self.waited = 0.0
        """Seconds that `take` has waited for reading, since the beginning."""
        self._read, self._items = read, iter(items)
        self._is_pinned = device.type == "cuda"
        self._pool = ThreadPoolExecutor(1, "packs") if device.type != "cpu" else None
        self._ahead: deque[tuple[Item, Future[Batch]]] = deque()
        self._held: DataError | None = None

    def take(self, item: Item) -> Batch:
        """Return the batch of `item`, which must be the next. Raises DataError if it cannot be read."""
        before = time.perf_counter()
        try:
            if self._pool is None:
                expected, batch = next(self._items), self._read(item)
            else:
                self._fill(self._pool)
                expected, reading = self._ahead.popleft()
                batch = reading.result()
                self._fill(self._pool)  # the place is free now: read on before the device has this batch
            assert expected == item, f"{item} is taken, {expected} was next"
        finally:
            self.waited += time.perf_counter() - before
        return batch

    def take_or_hold(self, item: Item) -> Batch:
        """Return the batch of `item`; that of no packs if it cannot be read, and hold the error.

        So this rank meets the others in the collectives of the step, which all then leave by `raise_held`: for no step may
        be finished after `has_failed`.
        """
        try:
            return self.take(item)
        except DataError as error:
            self._held = self._held or error
            return nothing()

    @property
    def has_failed(self) -> bool:
        """Tell whether an error is held on this rank."""
        return self._held is not None

    def raise_held(self, world: World) -> None:
        """Raise the held errors of all ranks on all ranks, if there are any; each must call it."""
        world.together(self._raise)

    def _raise(self) -> None:
        if self._held is not None:
            raise self._held

    def close(self) -> None:
        """Drop what is not taken, and end the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._ahead.clear()

    def __enter__(self) -> "ReadAhead[Item]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while len(self._ahead) < AHEAD:
            try:
                item = next(self._items)
            except StopIteration:
                return
            self._ahead.append((item, pool.submit(self._read_pinned, item)))

    def _read_pinned(self, item: Item) -> Batch:
        batch = self._read(item)
        return pinned(batch) if self._is_pinned else batch


def pinned(batch: Batch) -> Batch:
    """Return `batch` in page-locked memory, from which a copy to the device runs beside the host."""
    parts: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
    tensors: dict[str, Any] = {name: part.pin_memory() for name, part in parts.items() if isinstance(part, Tensor)}
    return replace(batch, **tensors)
