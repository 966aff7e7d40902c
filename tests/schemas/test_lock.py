import os
import subprocess
import sys

import pytest

from schemas.lock import LockedError, locked


def test_a_second_writer_is_told_who_holds_the_run(tmp_path):
    code = (
        "import pathlib\n"
        "from schemas.lock import locked\n"
        f"with locked(pathlib.Path({str(tmp_path / '.lock')!r})): pass\n"
    )
    with locked(tmp_path / ".lock"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert f"pid {os.getpid()}" in done.stderr
        assert "another --run" in done.stderr
        with pytest.raises(LockedError), locked(tmp_path / ".lock"):
            pass
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
