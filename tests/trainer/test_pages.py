"""Freed memory stays with the process, so that it need not be filled with zeros again."""

import subprocess
import sys

import pytest

from trainer.pages import keep_pages

CODE = """
import resource, sys
from trainer.pages import keep_pages
if sys.argv[1] == "kept":
    keep_pages()
bytearray(64 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    bytearray(64 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="says it of glibc")
def test_large_blocks_that_come_again_cost_no_page_faults() -> None:
    how = {word: subprocess.run([sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True).stdout
           for word in ("kept", "left")}  # fmt: skip
    assert int(how["kept"]) < 100
    assert int(how["left"]) > 100, "nothing was mapped anew: this C library does not need keep_pages"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    keep_pages()
