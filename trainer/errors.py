"""What can stop a training run, drawn as a tree.

TrainError                    the text says what, where, got, expected, and what to do
├── DataError                 packs are missing, damaged or unusable                          exit 3
│   ├── Diverged              a loss or gradient became NaN or infinite                       exit 3
│   ├── ExportRefused         the trained model never ends an answer                          exit 3
│   └── Elsewhere             another rank has the error; this one is silent                  exit 3
├── ModelError                a model directory cannot be used                                exit 2
└── PlanMismatch              a checkpoint belongs to another plan                            exit 2
"""


class TrainError(Exception):
    """An error for the user: its text is all they need to see."""

    exit_code = 2


class DataError(TrainError):
    """The packs are missing, damaged or unusable."""

    exit_code = 3


class Diverged(DataError):  # noqa: N818
    """A loss or gradient became NaN or infinite; names the conversations of the step."""


class ExportRefused(DataError):  # noqa: N818
    """No answer of the trained model ends on a stop token, so serving it would never end either."""


class Elsewhere(DataError):  # noqa: N818
    """Another rank has the error and says so; this one stops without a word."""


class ModelError(TrainError):
    """A model directory is incomplete, or of a family that is not implemented."""


class PlanMismatch(TrainError):  # noqa: N818
    """The checkpoints in the run directory were made with another plan."""
