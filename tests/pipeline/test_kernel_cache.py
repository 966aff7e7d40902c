"""Compiled kernels belong to one version of the code."""

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import kernel_cache
from pipeline.terminal import TerminalProgress


def test_a_version_of_the_code_that_was_never_used_has_nothing_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code = tmp_path / "stages" / "a.py"
    code.parent.mkdir()
    code.write_text("x = 1\n")
    monkeypatch.setattr(kernel_cache, "__file__", str(tmp_path / "pipeline" / "kernel_cache.py"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    assert kernel_cache.use_kernel_cache()
    first = Path(os.environ["NUMBA_CACHE_DIR"])
    (first / "kernel.nbc").write_bytes(b"")
    assert not kernel_cache.use_kernel_cache()
    code.write_text("x = 2\n")
    assert kernel_cache.use_kernel_cache()
    assert Path(os.environ["NUMBA_CACHE_DIR"]) != first
    assert first.is_dir()


def test_why_the_first_build_is_slow_is_said():
    out = io.StringIO()
    TerminalProgress(Console(file=out, width=200)).compiling()
    assert "compiled once for this version of the code" in out.getvalue()
