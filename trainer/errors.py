"""What can stop a training run, drawn as a tree.

TrainError                    the text says what, where, got, expected, and what to do
├── DataError                 packs are missing, damaged or unusable                          exit 3
│   ├── CheckpointsUnusable   there are checkpoints, but none is whole                        exit 3
│   ├── Diverged              a loss or gradient became NaN or infinite                       exit 3
│   └── ExportRefused         the trained model does not end its answers                      exit 3
├── ModelError                a model directory cannot be used                                exit 2
├── OutOfMemory               a batch does not fit the accelerator                            exit 2
├── PlanMismatch              a checkpoint belongs to another plan                            exit 2
├── RestartsRefused           ranks that were started again could not meet                    exit 2
├── TooManyRanks              more processes on a machine than GPUs                         exit 2
├── StorageError              something could not be written                                  exit 4
├── Together                  errors of several ranks, said once                              exit as theirs
└── Elsewhere                 rank 0 says what is wrong; this rank is silent                  exit as there
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import UserError


class TrainError(UserError):
    """An error for the user: its text is all they need to see."""


class DataError(TrainError):
    """The packs are missing, damaged or unusable."""

    exit_code = 3


class CheckpointsUnusable(DataError):  # noqa: N818
    """Checkpoints lie there and none is whole: starting over must be a person's decision."""


class Diverged(DataError):  # noqa: N818
    """A loss or gradient became NaN or infinite; names the conversations of the step. All ranks raise it."""


class ExportRefused(DataError):  # noqa: N818
    """Too few answers of the trained model end on a stop token, so serving it would not end either."""


class ModelError(TrainError):
    """A model directory is incomplete, or of a family that is not implemented."""


class OutOfMemory(TrainError):  # noqa: N818
    """A batch does not fit the accelerator's memory."""


class PlanMismatch(TrainError):  # noqa: N818
    """The checkpoints in the run directory were made with another plan."""


class RestartsRefused(TrainError):  # noqa: N818
    """Ranks that torchrun started again, on several machines, would not find each other."""


class TooManyRanks(TrainError):  # noqa: N818
    """There are more processes on a machine than GPUs."""


class StorageError(TrainError):
    """Something could not be written."""

    exit_code = 4


class Together(TrainError):  # noqa: N818
    """What went wrong on one or several ranks, said once, by rank 0."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Elsewhere(TrainError):  # noqa: N818
    """Rank 0 says what is wrong; this rank stops without a word."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("rank 0 says what is wrong")
        self.exit_code = exit_code


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the disk or its file system refuses while `path` is written into a StorageError that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(
            f"{path}: could not be written: {what}. Free some space or mend the directory, then give the same command "
            "again; the newest whole checkpoint is kept"
        ) from error
