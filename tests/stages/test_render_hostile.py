"""Hostile chat templates end soon, small and inside: each runs in a process of its own that is watched from outside.

Every case is tried twice: as the whole template, which must be refused by name, and inside a good template where it acts on
one conversation alone, which must lose that conversation and no other. An attempt to escape may also find nothing.
"""

import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from tests.corpus import ROOT
from tests.stages.render_hostile_templates import BAIT, BOMBS, BROKEN, ESCAPES

MAX_SECONDS = 1.5
"""Of CPU, for one build of three conversations."""
MAX_BYTES = 512 << 20
JAIL = """
import json, resource, signal, sys, time

from schemas.assets import Template
from stages.render import Render, RenderError, render_conversations
from tests.stages.test_render import frame

GOOD = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
ANSWERS = [
    [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}] for text in ("Hello", "spring it", "Bye")
]


def attempt(source, whole):
    if not whole:
        source = "{% if messages[0].content == 'spring it' %}" + source + "{% endif %}" + GOOD
    tokens = ("<|im_start|>", "<|im_end|>")
    template = Template(name="the hostile one", source=source, variables={"eos_token": "<|im_end|>"}, control_tokens=tokens)
    try:
        out = render_conversations(frame(*ANSWERS), Render(), template=template)
    except RenderError as error:
        return {"refused": str(error)}
    return {"texts": out["text"].to_list(), "reasons": out["drop_reason"].to_list(), "details": out["detail"].to_list()}


resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
attempt("", True), attempt("", False)
print("ready", flush=True)
for line in sys.stdin:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak of resident memory is counted anew
    signal.setitimer(signal.ITIMER_PROF, 3)  # of CPU; then the signal kills
    start = time.process_time()
    found = attempt(*json.loads(line))
    found["seconds"] = time.process_time() - start
    signal.setitimer(signal.ITIMER_PROF, 0)
    with open("/proc/self/status") as file:
        found["bytes"] = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    print(json.dumps(found), flush=True)
"""

CASES = {**ESCAPES, **BOMBS, **BROKEN}
KEYS = [(name, whole) for name in CASES for whole in (True, False)]
Verdict = dict[str, Any]
Verdicts = dict[tuple[str, bool], Verdict]


def start_jail() -> subprocess.Popen[str]:
    """Start a process that has loaded the code and rendered something."""
    jail = subprocess.Popen(
        [sys.executable, "-c", JAIL], cwd=ROOT, text=True, stdin=PIPE, stdout=PIPE, stderr=subprocess.DEVNULL
    )
    assert jail.stdout is not None
    assert jail.stdout.readline() == "ready\n"
    return jail


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def verdicts(home: Path) -> Verdicts:
    """Run every case in the jail, a new one after each that dies in it, and say how they ended."""
    out: Verdicts = {}
    jail = start_jail()
    for name, whole in KEYS:
        assert jail.stdin is not None
        assert jail.stdout is not None
        jail.stdin.write(json.dumps([CASES[name].replace(BAIT, str(home / BAIT)), whole]) + "\n")
        jail.stdin.flush()
        line = jail.stdout.readline()
        if line:
            out[name, whole] = json.loads(line)
        else:
            jail.communicate()
            out[name, whole] = {"died": jail.returncode}
            jail = start_jail()
    jail.communicate()
    return out


def is_contained(verdict: Verdict) -> None:
    assert "died" not in verdict, "killed after 3 seconds of CPU, or crashed"
    assert verdict["seconds"] < MAX_SECONDS
    assert verdict["bytes"] < MAX_BYTES


GOOD_TEXT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"


def loses_one_row(verdict: Verdict, *, may_find_nothing: bool) -> None:
    hello, sprung, bye = (GOOD_TEXT.format(said) for said in ("Hello", "spring it", "Bye"))
    if may_find_nothing and verdict["texts"][1] is not None:
        assert verdict["texts"] == [hello, sprung, bye]
        return
    assert verdict["texts"] == [hello, None, bye]
    assert verdict["reasons"] == [None, "template_error", None]
    assert len(verdict["details"][1]) < 1000


@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_is_refused_or_finds_nothing(name: str, verdicts: Verdicts):
    alone, within = verdicts[name, True], verdicts[name, False]
    is_contained(alone)
    is_contained(within)
    assert "the hostile one" in alone["refused"]  # of itself it writes nothing of what the assistant says
    if "refused" in within:
        assert "the hostile one" in within["refused"]
    else:
        loses_one_row(within, may_find_nothing=True)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_name_and_loses_one_row(name: str, verdicts: Verdicts):
    alone, within = verdicts[name, True], verdicts[name, False]
    is_contained(alone)
    is_contained(within)
    assert "the hostile one" in alone["refused"]
    loses_one_row(within, may_find_nothing=False)


@pytest.mark.parametrize("name", BROKEN)
def test_a_template_that_does_not_compile_is_refused_by_name(name: str, verdicts: Verdicts):
    is_contained(verdicts[name, True])
    assert "the hostile one" in verdicts[name, True]["refused"]


def test_no_file_was_made(home: Path, verdicts: Verdicts):
    assert len(verdicts) == 2 * len(CASES)
    assert not (home / BAIT).exists()


def test_the_jail_sees_what_it_is_there_to_see():
    """Memory that is taken and given back shows; so does time, after which the case is killed."""
    jail = start_jail()
    small, large = ("{{ 'a' * 90000 }}", False), ("{{ ('a' * 90000) | list | length }}", False)
    answers = []
    for case in (small, large):
        print(json.dumps(case), file=jail.stdin, flush=True)
        answers.append(json.loads(jail.stdout.readline()))
    jail.communicate()
    assert answers[1]["bytes"] > answers[0]["bytes"] > 0
