"""The process that writes answers, seen from the side that asks: token ids there, token ids back."""

import contextlib
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import msgspec

from schemas.answers import Failed, Opening, Ready, Reply, Request
from schemas.errors import UserError


class AnswererError(UserError):
    """The process that writes answers cannot go on."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Answerer:
    """A model in a process of its own, which starts at once and loads while other things are done.

    What is sent is taken at once, however long a step takes, so that sending never waits for receiving. Leaving the context
    by an exception ends the process where it stands.
    """

    def __init__(self, directory: Path, opening: Opening) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainer.answers", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # the terminal's Ctrl-C comes to this process alone
        )
        self.send(opening)

    def send(self, request: Request) -> None:
        """Send a request; that the process has ended is for `receive` to say."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(request) + b"\n")
            self._process.stdin.flush()

    def receive(self) -> Reply:
        """Return the next reply. Raises AnswererError when the process cannot go on."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            code = self._process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise AnswererError(
                f"the process that writes the answers ended without a word ({how}); if the machine ran out of memory, lower "
                "generation.batch, e.g. --set generation.batch=1",
                4,
            )
        reply: Reply = msgspec.json.decode(line, type=Reply)
        if isinstance(reply, Failed):
            raise AnswererError(reply.text, reply.exit_code)
        return reply

    def wait_ready(self) -> Ready:
        """Return what the model is like, once it is in memory."""
        reply = self.receive()
        assert isinstance(reply, Ready)
        return reply

    def __enter__(self) -> "Answerer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
