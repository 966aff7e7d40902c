import contextlib
import errno
import io
import json
import os
import subprocess
import sys

import polars as pl
import pytest

from pipeline.cli import _report, main
from pipeline.verbs import parser
from schemas.manifest import STAGES
from tests.corpus import ROOT, write_config, write_corpus

SWITCHES = {
    "data": ["--fresh", "--help", "--input", "--limit", "--run", "--set", "--until", "--verify", "--workers", "CONFIG"],
    "train": ["--dry-run", "--fresh", "--gpus", "--help", "--restarts", "--run", "--set", "CONFIG"],
    "generate": [
        "--fresh",
        "--help",
        "--input",
        "--limit",
        "--max-new-tokens",
        "--output",
        "--set",
        "MODEL",
    ],
    "chat": ["--help", "--max-new-tokens", "--set", "--system", "MODEL"],
    "explain": ["--help", "--id", "--json", "--loss", "--phase", "--ranks", "--step", "RUN"],
    "look": ["--dropped", "--help", "--id", "--reason", "--row", "RUN", "STAGE"],
    "duplicates": ["--help", "--id", "--json", "--top", "RUN"],
    "check": ["--field", "--help", "--json", "--output", "--threshold", "FILE"],
    "funnel": ["--help", "--json", "RUN"],
}
HEAVY = ("torch", "datasets", "datasketch", "numba", "polars", "transformers", "pandas")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def shown(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that only shows something, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def test_the_switches_are_the_published_ones():
    verbs = parser()._subparsers._group_actions[0].choices
    found = {
        name: sorted(
            action.option_strings[-1] if action.option_strings else str(action.metavar) for action in verb._actions
        )
        for name, verb in verbs.items()
    }
    assert found == SWITCHES


@pytest.mark.parametrize("verb", ["", *SWITCHES])
def test_every_command_explains_itself(verb):
    done = shown(*filter(None, [verb]), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: chatloom")
    assert len(done.stdout.splitlines()) > 6


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["duplicates", "--help"], ["funnel", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    code = (
        "import sys\nfrom pipeline.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_looking_loads_neither_torch_nor_datasets_nor_datasketch():
    code = "import sys, pipeline.look, pipeline.duplicates_page, pipeline.funnel, pipeline.run\n"
    code += "print([m for m in ('torch', 'datasets', 'datasketch', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cli")
    corpus = write_corpus(directory / "a.jsonl", 60, bad_every=20, copy_every=15)
    config = write_config(directory, corpus)
    done = run("data", str(config), "--workers", "1")
    assert done.returncode == 0, done.stderr
    return directory / "run", corpus, config, done.stdout


def test_a_build_says_what_became_of_the_input_and_what_comes_next(built):
    _, _, _, out = built
    lines = out.splitlines()
    done = [
        line for line in lines if line.startswith("  ") and " shards" not in line and " reading " not in line
    ]  # a slow build says how far it is
    assert [line.split()[0] for line in done] == ["source", *STAGES]
    assert "57 kept         3 dropped  bad_json 3" in done[1]
    assert lines[-1].startswith("done: ")
    assert "Next: chatloom train" in lines[-1]


def test_a_second_build_does_nothing_and_says_so(built):
    _, _, config, _ = built
    done = run("data", str(config))
    assert done.stdout.splitlines()[-1].startswith("everything is up to date: 9 stages")


def test_the_funnel_adds_up(built):
    directory, *_ = built
    stages = json.loads(shown("funnel", str(directory), "--json").stdout)["stages"]
    assert list(stages) == list(STAGES)
    assert stages["ingest"]["in"] == 60
    assert stages["ingest"]["dropped"] == {"bad_json": 3}
    previous = None
    for stage in stages.values():
        assert stage["in"] == stage["kept"] + sum(stage["dropped"].values())
        assert previous is None or stage["in"] == previous or stage is stages["dedup"]
        previous = stage["kept"]
    assert "bad_json 3" in shown("funnel", str(directory)).stdout


@pytest.mark.parametrize("stage", STAGES)
def test_looking_works_at_every_stage(built, stage):
    directory, *_ = built
    done = shown("look", str(directory), stage, "--row", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{stage}, kept row 1 of ")
    packed = pl.read_ipc(next(directory.glob("pack/kept/train/*.arrow")))["ids"].explode()
    assert shown("look", str(directory), stage, "--id", packed[-1]).returncode == 0


def test_duplicates_are_shown_beside_their_keepers(built):
    directory, *_ = built
    done = shown("duplicates", str(directory), "--top", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "of 57 rows removed" in lines[0]
    assert "splits: train " in done.stdout
    (line,) = [line for line in lines if line.startswith("  removed  ")]
    one = shown("duplicates", str(directory), "--id", line.split()[1]).stdout
    assert "dropped: near_duplicate" in one
    assert "⟦Yes.⟧" in one


def test_a_dropped_row_says_why_and_shows_what_was_kept_instead(built):
    directory, corpus, *_ = built
    out = shown("look", str(directory), "ingest", "--dropped", "--id", f"{corpus}:20").stdout
    assert "dropped: bad_json: the line" in out
    out = shown("look", str(directory), "dedup", "--dropped").stdout
    assert "near_duplicate" in out
    assert "kept in its place" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["data", "none.toml"], 2, "none.toml: no such config file"),
        (["data", "CONFIG", "--set", "length.min_char=3"], 2, "did you mean 'min_chars'?"),
        (["data", "CONFIG", "--input", "nowhere/*.jsonl"], 2, "nowhere/*.jsonl"),
        (["data", "CONFIG", "--set", "tokenize.tokenizer=no/such/thing"], 2, "no such file or directory"),
        (["data", "CONFIG", "--set", "render.template=chatlm"], 2, "did you mean 'chatml'?"),
        (["funnel", "runs/none"], 2, "no finished stage here"),
        (["look", "runs/none", "mask"], 2, "not built, or not up to date"),
        (["look", "RUN", "mask", "--row", "999"], 2, "rows are numbered 0 to"),
        (["look", "RUN", "mask", "--id", "CORPUS:20"], 2, "It was dropped by ingest: bad_json"),
    ],
)
def test_a_mistake_gets_one_sentence_and_no_traceback(built, arguments, code, said):
    directory, corpus, config, _ = built
    names = {"CONFIG": str(config), "RUN": str(directory)}
    command = run if arguments[0] == "data" else shown
    done = command(*(names.get(argument, argument.replace("CORPUS", str(corpus))) for argument in arguments))
    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.startswith("chatloom: error: ")
    assert "Traceback" not in done.stderr


def test_nothing_left_is_no_success(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "no conversation"}\n' * 3)
    done = run("data", str(write_config(tmp_path, tmp_path / "a.jsonl")))
    assert done.returncode == 3
    assert "no conversation is left after ingest: 3 in, none kept. Mostly unknown_shape (3)" in done.stderr
    assert f"chatloom look {tmp_path / 'run'} ingest --reason unknown_shape" in done.stderr


def test_a_file_of_blank_lines_is_no_success_and_no_defect(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n \n\n")
    done = run("data", str(write_config(tmp_path, tmp_path / "a.jsonl")))
    assert done.returncode == 3
    assert "the inputs hold no record: all of their lines are blank" in done.stderr


def test_a_heavy_loss_is_remarked_upon(tmp_path):
    corpus = write_corpus(tmp_path / "a.jsonl", 30, bad_every=3)
    done = run("data", str(write_config(tmp_path, corpus)), "--until", "length")
    assert "note: ingest dropped 33% of its conversations. Mostly bad_json (10)" in done.stdout


def test_the_next_command_is_the_one_for_this_run(tmp_path):
    corpus = write_corpus(tmp_path / "a.jsonl", 30)
    config = write_config(tmp_path, corpus)
    done = run(
        "data", str(config), "--run", str(tmp_path / "other"), "--set", "mask.preset=last", "--set", "train.lr=1e-3"
    )
    assert done.stdout.splitlines()[-1].endswith(
        f"Next: chatloom train {config} --run {tmp_path / 'other'} --set train.lr=1e-3"
    )


def test_without_colour_brackets_mark_what_is_trained(built):
    directory, *_ = built
    out = shown("look", str(directory), "mask").stdout
    assert out.count("⟦") == out.count("⟧") > 1
    assert "<|im_end|>⟧" in out


@pytest.mark.parametrize("arguments", [["look", "RUN", "mask"], ["funnel", "RUN"], ["duplicates", "RUN"]])
def test_a_reader_that_leaves_is_no_failure(built, arguments):
    directory, *_ = built
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pipeline.cli", *(str(directory) if a == "RUN" else a for a in arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_in_use_is_refused_with_its_own_code(built):
    from schemas.lock import locked

    directory, _, config, _ = built
    with locked(directory / ".lock"):
        done = run("data", str(config))
    assert done.returncode == 75
    assert "another process is writing this run" in done.stderr


def test_a_full_disk_is_told_with_its_place_and_what_to_do(capsys):
    assert _report(OSError(errno.ENOSPC, "No space left on device", "/mnt/run/length/kept/00000.arrow")) == 4
    said = capsys.readouterr().err
    assert "No space left on device: '/mnt/run/length/kept/00000.arrow'. Free some space there" in said
    assert _report(OSError(errno.EACCES, "Permission denied", "/mnt/a")) == 4
    assert "Free some" not in capsys.readouterr().err
