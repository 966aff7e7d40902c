"""Where compiled kernels are kept: a directory named after the code of all stages, so that none outlives its source.

numba's own cache looks at the file of a function and not at those it calls: after an update it may run old machine code.
"""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Final

_PREFIX: Final = "kernels-"
_DAY: Final = 24 * 3600.0


def use_kernel_cache() -> bool:
    """Point numba at the cache of this version of the code; it must not have been imported yet. Older ones are removed.

    Not on the day they were last used: a process that started before the code was changed may still need its own. Returns
    whether there is nothing in it yet, so that kernels are going to be compiled.
    """
    stages = Path(__file__).parent.parent / "stages"
    sources = sorted(stages.rglob("*.py"))
    state = hashlib.sha256()
    for path in sources:
        for part in (str(path.relative_to(stages)).encode(), path.read_bytes()):
            state.update(b"%d:%b" % (len(part), part))
    name = f"{_PREFIX}{state.hexdigest()[:16]}"
    home = stages / "__pycache__"
    try:
        home.mkdir(exist_ok=True)
        (home / name).mkdir(exist_ok=True)
    except OSError:  # installed where this user may not write
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chatloom"
        (home / name).mkdir(parents=True, exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(home / name)
    is_empty = not any((home / name).iterdir())
    os.utime(home / name)
    for old in home.glob(f"{_PREFIX}*"):
        if old.name != name and time.time() - old.stat().st_mtime > _DAY:
            shutil.rmtree(old, ignore_errors=True)
    return is_empty
