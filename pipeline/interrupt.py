"""Ctrl-C and SIGTERM in the middle of a build: seen for certain, even where Python drops the exception."""

import signal
from typing import NoReturn


class Stopped(KeyboardInterrupt):
    """A person or a scheduler asked the build to stop.

    A class of its own: after a plain KeyboardInterrupt that passed through exec() of a text, as libraries do on import,
    CPython ends the process by SIGINT although the exception was caught and an exit code returned.
    """


class Stop:
    """Raises Stopped when a signal comes, and remembers it: an exception raised inside a callback from C is dropped."""

    def __init__(self) -> None:
        self.is_asked = False

    def install(self) -> None:
        """Handle SIGINT and SIGTERM from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.is_asked:
            raise Stopped

    def _handle(self, *_: object) -> NoReturn:
        self.is_asked = True
        raise Stopped
