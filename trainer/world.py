"""This process among the processes that train together: one alone, or one per rank under torchrun."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from schemas.errors import UserError
from trainer.errors import Elsewhere, Together, TooManyRanks
from trainer.meeting import store_of_this_start
from trainer.pages import keep_pages

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long a collective waits for a rank that does not come before it fails; rank 0 samples and saves in this time."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Who this process is, and the few collectives that training needs."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Tell whether this process speaks and writes for all."""
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Return the sums over ranks, in float64."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, *values: float) -> list[float]:
        """Return the maxima over ranks, in float64."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def any(self, *flags: bool) -> Tensor:
        """Return, for each flag, 1.0 if it is true on some rank, else 0.0, on the device: nothing waits for it here."""
        # filled there: the host waits for the device when it copies to it what is not page-locked
        found = torch.zeros(len(flags), dtype=torch.float64, device=self.device)
        for i, flag in enumerate(flags):
            if flag:
                found[i].fill_(1.0)
        if self.size > 1:
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return found

    def together(self, do: Callable[[], T]) -> T:
        """Return do(), which must hold no collective, once it has succeeded on every rank.

        If it raises a UserError on any rank, rank 0 raises what was said, each text once, and the others Elsewhere, so
        that nobody waits for a rank that has stopped.
        """
        if self.size == 1:
            return do()
        result: T | None = None
        own: UserError | None = None
        try:
            result = do()
        except UserError as error:
            own = error
        said: list[tuple[int, str] | None] = [None] * self.size
        dist.all_gather_object(said, None if own is None else (own.exit_code, str(own)))
        wrong = [entry for entry in said if entry is not None]
        if not wrong:
            return result  # type: ignore[return-value]
        code = wrong[0][0]
        if not self.is_first:
            raise Elsewhere(code)
        texts = list(dict.fromkeys(text for _, text in wrong))
        if own is not None and texts == [str(own)]:
            raise own
        raise Together("\n".join(texts), code)

    def gather(self, value: T) -> list[T]:
        """Return the value of every rank, by rank, on all of them."""
        if self.size == 1:
            return [value]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def leave(self) -> None:
        """Part from the other ranks: after this each goes on alone. Every rank must come, for each waits for all."""
        if self.size > 1 and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()

    def _reduce(self, values: tuple[float, ...], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor: Tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=how)
        return [float(value) for value in tensor.tolist()]


def check_gpus(n_gpus: int, *, local_rank: int, local_size: int) -> None:
    """Raise TooManyRanks on the first rank of a machine, and Elsewhere on the others, unless each has a GPU of its own."""
    if local_size <= n_gpus:
        return
    if local_rank > 0:
        raise Elsewhere(TooManyRanks.exit_code)
    raise TooManyRanks(
        f"{local_size} ranks on a machine with {n_gpus} GPU{'' if n_gpus == 1 else 's'}, and each rank needs one of its own; "
        f"give --gpus {n_gpus} (torchrun --nproc-per-node {n_gpus}), or CUDA_VISIBLE_DEVICES= to train on the CPU"
    )


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Join the other ranks if torchrun started several, choose the device and the number of threads; leave at the end.

    A rank that dies breaks the others' next collective, so none waits for ever.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        check_gpus(torch.cuda.device_count(), local_rank=local_rank, local_size=local_size)
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    elif size > 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_size))
    if not on_gpu:
        keep_pages()
    if size == 1:
        yield World(rank=0, size=1, local_rank=0, local_size=1, device=device)
        return
    store = store_of_this_start()
    own: dict[str, Any] = {} if store is None else {"store": store, "rank": int(os.environ["RANK"]), "world_size": size}
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT, device_id=device if on_gpu else None, **own)
    try:
        yield World(rank=dist.get_rank(), size=size, local_rank=local_rank, local_size=local_size, device=device)
    finally:
        # after an error NCCL would wait here for work that others never join; the end of the process frees all the same
        if dist.is_initialized() and not (on_gpu and sys.exc_info()[0]):
            dist.destroy_process_group()
