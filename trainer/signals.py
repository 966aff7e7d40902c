"""Asking a training run to stop: the first signal is a wish, obeyed at the next step's end. Imports no torch."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Stop:
    """Whether a signal came, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def catching(*, may_insist: bool) -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a Stop while inside.

    With `may_insist` a second Ctrl-C interrupts at once; under torchrun it must not, for its agent passes on to every
    rank the Ctrl-C that the terminal already sent.
    """
    stop = Stop()

    def note(number: int, _: FrameType | None) -> None:
        if stop and may_insist and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
