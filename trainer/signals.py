"""Asking a training run to stop: the first signal is a wish, obeyed at the next step's end. Imports no torch."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Whether a signal came, and which; or whether `parent`, the process that looks after this one, is gone."""

    def __init__(self, parent: int | None = None) -> None:
        self.signal: int | None = None
        self._parent = parent

    def __bool__(self) -> bool:
        return self.signal is not None or (self._parent is not None and os.getppid() != self._parent)


@contextlib.contextmanager
def catching(*, may_insist: bool, parent: int | None = None) -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a Stop while inside.

    With `may_insist` a second Ctrl-C interrupts at once; under torchrun it must not, for its agent passes on to every
    rank the Ctrl-C that the terminal already sent. Without its `parent` nobody could stop this process any more, so that
    it stops by itself.
    """
    stop = Stop(parent)

    def note(number: int, _: FrameType | None) -> None:
        if stop.signal is not None and may_insist and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
