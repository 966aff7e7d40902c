"""What `chatloom train` starts, and how it stops; the training itself is tests/test_end_to_end.py's."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.launch import _watched, children, resume_command, trainer_command
from pipeline.verbs import parser


def options(*words):
    return parser().parse_args(["train", *words])


def test_one_process_is_the_trainer_and_several_are_torchruns():
    given = ["c.toml", "--run", "r", "--set", "train.lr=1", "--fresh"]
    assert trainer_command(options(*given))[1:] == [
        "-m", "trainer", "c.toml", "--run-dir", "r", "--set", "train.lr=1", "--fresh"
    ]  # fmt: skip
    start = ["-m", "trainer.ranks", "--standalone", "--nproc-per-node=3", "-m", "trainer", "c.toml"]
    assert trainer_command(options("c.toml", "--gpus", "3"))[1:] == start


def test_the_command_to_go_on_is_what_was_typed_without_starting_over(monkeypatch):
    monkeypatch.setattr("pipeline.launch.shutil.which", lambda _: "/usr/bin/chatloom")
    given = ["my config.toml", "--run", "r", "--gpus", "2", "--restarts", "3", "--set", "model.path='a b'"]
    assert shlex.split(resume_command(options(*given, "--fresh"))) == ["chatloom", "train", *given]


def test_the_command_to_go_on_works_where_chatloom_is_not_on_the_path(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    bin_directory = Path(sys.executable).parent
    monkeypatch.chdir(bin_directory.parent.parent)
    expected = (bin_directory / "chatloom").relative_to(bin_directory.parent.parent)
    assert resume_command(options("c.toml")) == f"{expected} train c.toml"


def test_children_are_found_in_the_process_table():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in children(os.getpid())
        assert children(child.pid) == []
        child.communicate(b"\n")


# each rank writes its line at once, so that the lines of two do not mix
WATCH = """\
import os, sys
from pipeline.launch import _watched
ranks = "import signal, subprocess, sys; p = [subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True) "\\
        "for _ in range(2)]; sys.exit(max(x.wait() for x in p))"
rank = "import os, signal, sys, time; signal.signal(signal.SIGINT, lambda *_: sys.exit(0)); "\\
       "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.write(1, b'up' + bytes([10])); time.sleep(60)"
sys.exit(_watched([sys.executable, "-c", ranks, rank], os.environ))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_reaches_the_ranks_and_not_what_started_them(number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", WATCH], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
    began = time.monotonic()
    os.killpg(process.pid, number)  # as a terminal does it, to the whole foreground group
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (code, "")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("codes", "restarts", "n_starts", "code"),
    [
        ([-9, 1, 0], 3, 3, 0),  # killed, then a traceback, then done
        ([-9, -9, -9], 2, 3, 137),
        ([-9, 0], 0, 1, 137),
        ([2, 0], 3, 1, 2),  # what a person must change does not change by itself
        ([4, 0], 3, 1, 4),
    ],
)
def test_a_crash_is_followed_by_another_start_and_a_refusal_is_not(codes, restarts, n_starts, code, tmp_path, capfd):
    count = tmp_path / "count"
    count.write_text("")
    child = (
        f"import os, pathlib, sys; p = pathlib.Path({str(count)!r}); n = len(p.read_text()); p.write_text('x' * (n + 1)); "
        f"c = {codes}[n]; os.kill(os.getpid(), -c) if c < 0 else sys.exit(c)"
    )
    assert _watched([sys.executable, "-c", child], os.environ, restarts=restarts, is_alone=True) == code
    assert len(count.read_text()) == n_starts
    assert capfd.readouterr().err.count("starting it again (") == n_starts - 1


def test_nothing_is_started_again_for_somebody_who_stops_it():
    watch = (
        "import os, sys; from pipeline.launch import _watched; "
        'rank = "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(1)); '
        "os.write(1, b'up' + bytes([10])); time.sleep(60)\"; "
        "sys.exit(_watched([sys.executable, '-c', rank], os.environ, restarts=9, is_alone=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", watch], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 1
