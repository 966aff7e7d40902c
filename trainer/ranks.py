"""`python -m trainer.ranks`: torchrun with the same arguments, ended as a command is: one line, and the ranks' own code.

torchrun itself reports every rank that leaves with anything but 0 as a crash, with a traceback of its own, after the rank
has said what is wrong; and it leaves with 1.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

GLANCE: Final = 1.0
"""Seconds between two looks at who started this."""


def main(arguments: Sequence[str]) -> int:
    """Run torchrun and return the exit code of the rank that failed first, or 0; 130 when Ctrl-C came before any ran."""
    if watcher := os.environ.get("CHATLOOM_WATCHER"):
        threading.Thread(target=_end_without, args=(int(watcher),), daemon=True).start()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130


def _end_without(watcher: int) -> None:
    """End as by SIGTERM, ranks and all, when the `chatloom train` that started this process is gone, however it went."""
    while os.getppid() == watcher:
        time.sleep(GLANCE)
    os.kill(os.getpid(), signal.SIGTERM)


def _run(arguments: Sequence[str]) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for name in ("torch.distributed.elastic", "torch.distributed.run"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        torchrun(list(arguments))
    except ChildFailedError as error:
        for rank, failure in sorted(error.failures.items()):
            # a rank that was killed could not say so itself; the others are ended by SIGTERM because of it
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
                sys.stderr.write(f"error: rank {rank} was ended by {signal.Signals(-failure.exitcode).name}\n")
        code: int = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
