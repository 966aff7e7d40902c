"""What a person can mend, as opposed to defects of the code; each kind has its exit code.

UserError
├── ConfigError   (schemas.settings)   a setting or an argument is wrong                 exit 2
├── SourceError   (pipeline.source)    an input file cannot be read                      exit 2
├── TooLargeError (stages.cosine)      more than can be compared pair by pair           exit 2
├── GateError                          the data would break a promise                    exit 3
│   └── DamagedShardError (pipeline.store)   a file is not what its record says          exit 3
├── WorkerDiedError (pipeline.pool)    a worker process ended without a word             exit 4
├── LockedError   (schemas.lock)       another process writes the run                    exit 75
└── TrainError    (trainer.errors)     see there                                         exit 2 to 4
"""


class UserError(Exception):
    """An error whose text is all that a person needs: what, where, got, expected, what to do."""

    exit_code = 2


class GateError(UserError, ValueError):
    """The build stops, because going on would break a promise; the text names rows and says what to do."""

    exit_code = 3
