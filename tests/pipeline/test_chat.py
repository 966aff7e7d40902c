"""`chatloom chat`, driven over a pipe as a person would in a terminal."""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pipeline.chat import _Stream
from pipeline.cli import main
from pipeline.served import find_served
from tests.corpus import ROOT
from tests.pipeline.conftest import ROOM

LONGEST = 40


class Talk:
    """A running conversation, with answers that do not end by themselves."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "chat", *arguments],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.characters: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            while character := out.read(1):
                self.characters.put(character)

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode(errors="surrogateescape") + b"\n")
        self.process.stdin.flush()

    def hear(self, pattern: str = ".*\n") -> re.Match[str]:
        """Return what is written, as soon as `pattern` fits it."""
        heard = b""
        while (found := re.fullmatch(pattern, heard.decode("utf-8", "ignore"), re.DOTALL)) is None:
            heard += self.characters.get(timeout=60)
        return found

    def ask(self, text: str) -> str:
        self.say(text)
        found = self.hear(r"(.*)\n\[cut off after (\d+) tokens\]\n")
        assert found[2] == str(LONGEST)
        return found[1]

    def leave(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(timeout=60)


@pytest.fixture
def talk(trained: Path) -> Iterator[Talk]:
    greedily = ["--set", "generation.temperature=0", "--set", "generation.top_k=0"]
    found = Talk(str(trained), "--system", "Count.", "--max-new-tokens", str(LONGEST), *greedily)
    yield found
    found.process.kill()
    found.process.wait()
    found.reader.join()
    assert found.process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        found.process.stdin.close()


def test_a_conversation_over_a_pipe(talk: Talk) -> None:
    first = talk.ask("One?")
    assert first
    second = talk.ask("Two?")
    talk.say("/undo")
    assert talk.hear()[0] == "[taken back; 2 messages are left]\n"
    assert talk.ask("Two?") == second
    talk.say("/reset")
    assert talk.hear()[0] == "[a new conversation]\n"
    assert talk.ask("One?") == first
    # Ctrl-C while it writes ends the answer, not the conversation
    talk.say("Three?")
    talk.hear(".")
    talk.process.send_signal(signal.SIGINT)
    assert int(talk.hear(r".*\n\[cut off after (\d+) tokens\]\n")[1]) <= LONGEST
    talk.say("/undo")
    assert talk.hear()[0] == "[taken back; 2 messages are left]\n"
    talk.say("/undo")
    talk.hear()
    talk.say("/undo")
    assert talk.hear()[0] == "[there is nothing to take back]\n"
    talk.say("caf\udce9")  # as Latin-1 writes it
    assert talk.hear()[0].startswith("[that line is not UTF-8, so it was not asked")
    talk.say("What? " * ROOM)
    assert "/undo takes back the last question and its answer, /reset begins anew]" in talk.hear()[0]
    assert talk.ask("One?") == first
    assert talk.leave() == 0


def test_a_system_text_that_is_no_unicode_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", str(trained), "--system", "caf\udce9"]) == 2
    assert "is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["Grün, 诉 and 👩‍🔧.", "a\x1b[31m\x07\u202eb\n\tc\x9b"])
def test_an_answer_is_shown_in_whole_characters_that_command_nothing(
    said: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = find_served(str(trained), [])
    ids = Tokenizer.from_file(str(served.directory / "tokenizer.json")).encode(said, add_special_tokens=False).ids
    assert served.text(ids) == said
    stream, shown = _Stream(served), ""
    for token in ids:
        stream.add(token)
        shown += capsys.readouterr().out
        assert "\ufffd" not in shown
    stream.end(ids)
    shown += capsys.readouterr().out
    expected = {"\x1b": "\\x1b", "\x07": "\\x07", "\u202e": "\\x202e", "\x9b": "\\x9b", "\u200d": "\\x200d"}
    assert shown == "".join(expected.get(character, character) for character in said) + "\n"
