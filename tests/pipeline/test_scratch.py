import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.scratch import Scratch
from tests.corpus import ROOT


def test_scratch_memory_is_zeroed_writable_and_leaves_no_name(tmp_path: Path):
    array = Scratch(tmp_path)(10_000_001)
    assert (array.dtype, array.shape, array.any()) == (np.dtype(np.uint8), (10_000_001,), False)
    array[-1] = 7
    array[: 8 << 10].view(np.uint32)[:] = 9
    assert (array[-1], int(array[0])) == (7, 9)
    assert list(tmp_path.iterdir()) == []


def test_its_room_goes_with_the_array(tmp_path: Path):
    def open_files() -> int:
        return Path("/proc/self/maps").read_text().count(f"{tmp_path}/") + len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    array = Scratch(tmp_path)(1 << 20)
    part = array[100:]
    assert open_files() > before
    del array
    part[0] = 1
    del part
    assert open_files() == before


def test_of_nothing_there_is_an_array_too(tmp_path: Path):
    assert Scratch(tmp_path)(0).shape == (0,)


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path):
    free = os.statvfs(tmp_path)
    with pytest.raises(OSError, match=r"GiB for a temporary file .*raise \[clusters\] memory") as caught:
        Scratch(tmp_path)(free.f_bavail * free.f_frsize + (1 << 40))
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert caught.value.filename == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_the_size_of_files_is_an_error_not_a_dead_process(tmp_path: Path):
    code = (
        "import resource, sys; from pathlib import Path; from pipeline.scratch import Scratch\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({1 << 20}, {resource.RLIM_INFINITY}))\n"
        "try:\n    Scratch(Path(sys.argv[1]))(8 << 20)\nexcept OSError as error:\n    print(error)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "no 0.01 GiB for a temporary file" in out.stdout
