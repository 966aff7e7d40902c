"""The process that writes answers: token ids in, token ids out, in the lines of schemas.answers.

`chatloom generate` and `chatloom chat` start it; it knows no text, no template and no tokenizer.
"""

import argparse
import sys
from pathlib import Path

from schemas.answers import Failed
from schemas.errors import UserError
from trainer.errors import StorageError


def main() -> int:
    """Answer what comes in on standard input until it ends, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.answers",
        description="Write answers to prompts of token ids: JSON lines in, JSON lines out, as schemas/answers.py says.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="directory with config.json and *.safetensors")
    options = parser.parse_args()
    from trainer.answers.service import Wire, serve

    # nothing else may write where the replies go
    wire = Wire(sys.stdin.buffer, sys.stdout.buffer)
    sys.stdout = sys.stderr
    try:
        serve(options.model, wire)
    except UserError as error:
        wire.say(Failed(text=str(error), exit_code=error.exit_code))
        return error.exit_code
    except BrokenPipeError:  # whoever asked is gone
        return StorageError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
