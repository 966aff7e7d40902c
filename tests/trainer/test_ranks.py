"""Several ranks that fail, seen by whoever started them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


def two_ranks(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.ranks", "--standalone", "--nproc-per-node=2", *words]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120)


def test_the_error_is_one_line_and_the_code_is_the_ranks(run: Path) -> None:
    (run / "tokenizer" / "chat_template.jinja").unlink()
    done = two_ranks("-m", "trainer", str(run / "config.toml"))
    path = run / "tokenizer" / "chat_template.jinja"
    assert done.stderr == f"error: {path}: not found; run `chatloom data` again, which writes it beside the packs\n"
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("code", "expected", "said"),
    [
        ("pass", 0, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137, "was ended by SIGKILL"),
    ],
)
def test_a_rank_that_was_killed_is_named(code: str, expected: int, said: str, tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(f"import os\nif os.environ['RANK'] == '1':\n    {code}\n")
    done = two_ranks(str(script))
    assert done.returncode == expected, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
