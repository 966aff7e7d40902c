"""A conversation with a trained model, in the terminal or over a pipe."""

import contextlib
import io
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.answering import Answerer
from pipeline.excerpt import printable
from pipeline.kernel_cache import use_kernel_cache
from pipeline.prompts import encode_one
from pipeline.served import Served, find_served
from schemas.answers import Answered, Ask, Cancel, Opening, Ready, Refused, Token
from schemas.settings import ConfigError
from stages.ingest.messages import Message

HELP: Final = """\
/reset  forget the conversation     /undo  take back the last question and its answer
/exit   leave, as does Ctrl-D       Ctrl-C while it writes: stop the answer
A line that ends with \\ goes on in the next one."""
_COMMAND: Final = re.compile(r"/[a-z]+")
_UNFINISHED: Final = "\ufffd"
"""What stands at the end of a text whose last character is not whole yet."""


def chat(model: str, *, system: str | None, assignments: Sequence[str], max_new_tokens: int | None) -> int:
    """Talk with `model` until standard input ends, and return the exit code; `system` opens every conversation."""
    use_kernel_cache()
    if system is not None and not _is_text(system):
        raise ConfigError(f"--system {system!r}: is not UTF-8, as the terminal or the shell gave it; expected text")
    served = find_served(model, assignments, max_new_tokens=max_new_tokens)
    opening = Opening(generation=served.generation, stop_ids=served.stop_ids)
    with Answerer(served.directory, opening) as answerer:
        talk = _Talk(served, answerer, system)
        talk.encode("warm up")  # while the model is loaded
        ready = answerer.wait_ready()
        talk.room = ready.room
        if sys.stdin.isatty():
            _say_hello(served, ready)
        try:
            for line in _lines():
                if not talk.follow(line):
                    break
        except KeyboardInterrupt:
            print()  # noqa: T201
            return 130
    return 0


def _is_text(text: str) -> bool:
    """Tell whether `text` is Unicode: what Python reads that is not UTF-8 becomes lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _say_hello(served: Served, ready: Ready) -> None:
    print(f"{served.directory}, {ready.device}, up to {ready.room:,} tokens a conversation. /help says what there is")  # noqa: T201


def _lines() -> Iterator[str]:
    """Yield what is said, line by line; a backslash at the end of one joins it with the next."""
    is_terminal = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a line that is no UTF-8 is said to be none, in every locale
    if is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() its keys
    said: list[str] = []
    while True:
        try:
            line = input(("... " if said else ">>> ") if is_terminal else "")
        except EOFError:
            if said:
                yield "\n".join(said)
            if is_terminal:
                print()  # noqa: T201
            return
        if line.endswith("\\"):
            said.append(line[:-1])
            continue
        yield "\n".join([*said, line])
        said = []


class _Talk:
    """A conversation, and the process that goes on with it."""

    def __init__(self, served: Served, answerer: Answerer, system: str | None) -> None:
        self.served, self.answerer = served, answerer
        self.opening = [Message("system", system)] if system else []
        self.messages = list(self.opening)
        self.room = 0
        self._n_asked = 0

    def encode(self, text: str) -> tuple[tuple[int, ...], str | None]:
        """Return the token ids of the conversation with a further question, or why there are none."""
        prompt = encode_one([*self.messages, Message("user", text)], self.served)
        return prompt.input_ids, prompt.error

    def follow(self, line: str) -> bool:
        """Do what a line says, and return whether the conversation goes on."""
        said = line.strip()
        if said in ("/exit", "/quit"):
            return False
        if said == "/reset":
            self.messages = list(self.opening)
            _note("a new conversation")
        elif said == "/undo":
            self._undo()
        elif _COMMAND.fullmatch(said):
            print(HELP if said == "/help" else f"{said} is no command\n{HELP}")  # noqa: T201
        elif said:
            self._answer(line)
        return True

    def _undo(self) -> None:
        if len(self.messages) == len(self.opening):
            _note("there is nothing to take back")
            return
        del self.messages[-2:]
        _note(f"taken back; {len(self.messages) - len(self.opening)} messages are left")

    def _answer(self, text: str) -> None:
        """Ask, show the answer as it is written, and remember both; a question that cannot be asked is not remembered."""
        if not _is_text(text):
            _note("that line is not UTF-8, so it was not asked; is the terminal or the file in another encoding?")
            return
        ids, problem = self.encode(text)
        if problem is None and len(ids) >= self.room:
            problem = (
                f"the conversation has {len(ids)} tokens with this question, the model is made for {self.room}, answer "
                "included. /undo takes back the last question and its answer, /reset begins anew"
            )
        if problem is not None:
            _note(problem)
            return
        self._n_asked += 1
        self.answerer.send(
            Ask(key=self._n_asked, input_ids=ids, seed=self.served.seed + self._n_asked, is_streamed=True)
        )
        answer = self._listen()
        if answer is None:
            return
        written = self.served.text(answer.ids)
        if not answer.is_stopped:
            is_full = len(ids) + len(answer.ids) >= self.room
            _note(f"cut off {'where the model ends' if is_full else f'after {len(answer.ids)} tokens'}")
        self.messages += [Message("user", text), Message("assistant", written)]

    def _listen(self) -> Answered | None:
        """Show an answer while it is written; Ctrl-C ends it where it is."""
        stream = _Stream(self.served)
        with _noticing_interrupt() as interrupts:
            is_cancelled = False
            while True:
                reply = self.answerer.receive()
                if isinstance(reply, Refused):
                    _note(reply.reason)
                    return None
                if isinstance(reply, Answered):
                    stream.end(reply.ids)
                    return reply
                assert isinstance(reply, Token)
                stream.add(reply.id)
                if interrupts and not is_cancelled:
                    self.answerer.send(Cancel(key=reply.key))
                    is_cancelled = True


class _Stream:
    """Writes an answer as its tokens come, whole characters only, and nothing that could command the terminal."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.ids: list[int] = []
        self.shown = ""

    def add(self, token: int) -> None:
        """Take one more token."""
        self.ids.append(token)
        self._show(self.served.text(self.ids).rstrip(_UNFINISHED))

    def end(self, ids: Sequence[int]) -> None:
        """Show what is left of the answer, and end its line."""
        self._show(self.served.text(ids))
        sys.stdout.write("\n")
        sys.stdout.flush()

    def _show(self, text: str) -> None:
        if text.startswith(self.shown):
            sys.stdout.write(printable(text[len(self.shown) :]))
            sys.stdout.flush()
            self.shown = text


@contextlib.contextmanager
def _noticing_interrupt() -> Iterator[list[int]]:
    """Collect the signals of Ctrl-C instead of raising KeyboardInterrupt; the third one raises it after all."""
    noticed: list[int] = []

    def notice(number: int, _: object) -> None:
        noticed.append(number)
        if len(noticed) > 2:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, notice)
    try:
        yield noticed
    finally:
        signal.signal(signal.SIGINT, before)


def _note(text: str) -> None:
    """Say something that is not the model's."""
    print(printable(f"[{text}]"))  # noqa: T201
