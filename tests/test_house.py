"""The rules of the house, read off the source: who may import whom, and what a stage may not touch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus import ROOT

ROOMS = {
    "schemas": {"schemas"},
    "stages": {"schemas", "stages"},
    "pipeline": {"schemas", "stages", "pipeline"},
    "trainer": {"schemas", "trainer"},
}
FORBIDDEN_IN_STAGES = {"os", "io", "pathlib", "logging", "random", "time", "subprocess", "socket", "tempfile", "shutil"}
FORBIDDEN_CALLS = {"open", "print", "eval", "exec", "input"}
FILES = {room: sorted((ROOT / room).rglob("*.py")) for room in ROOMS}


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_bytes())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room):
    for path in FILES[room]:
        wrong = (imports(path) & set(ROOMS)) - ROOMS[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_a_stage_touches_neither_files_nor_clocks_nor_chance():
    for path in FILES["stages"]:
        assert not imports(path) & FORBIDDEN_IN_STAGES, path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN_CALLS, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_nothing_is_unpickled_or_evaluated():
    for paths in FILES.values():
        for path in paths:
            assert not imports(path) & {"pickle", "marshal", "shelve"}, path.relative_to(ROOT)


def test_no_module_is_a_drawer():
    for paths in FILES.values():
        for path in paths:
            assert path.stem not in {"utils", "util", "helpers", "common", "misc"}, path.relative_to(ROOT)


def test_every_make_target_is_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [
        line.partition(":")[0] for line in makefile.splitlines() if "## " in line and not line.startswith(("#", "\t"))
    ]
    assert len(targets) > 6
    assert [target for target in targets if f"make {target}" not in readme] == []


def test_the_benchmark_for_gpus_needs_torch_numpy_and_msgspec_alone():
    program = "import bench.gpu, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"pyarrow", "polars", "numba", "tokenizers", "transformers"} & set(done.stdout.split())
