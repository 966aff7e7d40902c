"""Worker processes load what the stages use, and nothing else."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.lean import KEPT_MEMORY
from tests.corpus import write_config, write_corpus

CODE = """
import sys
from pathlib import Path
from pipeline.lean import leave_out
leave_out()
from pipeline.config import load_config
from pipeline.run import build
built = build(load_config(Path(sys.argv[1])))
assert built.manifests["pack"].totals.kept > 0
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"pandas", "scipy", "awkward", "torch", "datasets"}))
"""


def test_all_stages_run_without_the_companions_that_libraries_look_for(tmp_path: Path):
    config = write_config(tmp_path, write_corpus(tmp_path / "a.jsonl", 40))
    done = subprocess.run([sys.executable, "-c", CODE, str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_splits_of_a_directory_are_found_though_the_library_that_finds_them_needs_a_companion(tmp_path: Path):
    for name in ("train", "validation"):
        write_corpus(tmp_path / "chats" / f"{name}.jsonl", 40)
    config = write_config(tmp_path, tmp_path / "chats")
    done = subprocess.run([sys.executable, "-c", CODE, str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pandas" in done.stdout.split()


FAULTS = """
import resource, sys
if sys.argv[1] == "call":
    from pipeline.lean import keep_memory
    keep_memory()
def use():
    return [b"x" * (8 << 20) for _ in range(8)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's allocator is asked to")
@pytest.mark.parametrize("way", ["call", "environment"])
def test_memory_that_a_shard_has_used_is_not_fetched_again_page_by_page(way: str):
    environment = os.environ | (KEPT_MEMORY if way == "environment" else {})
    command = [sys.executable, "-c", FAULTS, way]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # of five times 16,384 pages
