"""Starting the trainer's look back at its own steps: it knows the order of packs and the model, this room neither."""

import argparse
import os
import sys


def explain_command(options: argparse.Namespace) -> list[str]:
    """Return the command that `chatloom explain` stands for."""
    command = [sys.executable, "-m", "trainer.explain", options.run]
    for switch in ("step", "id", "phase", "ranks"):
        value = getattr(options, switch)
        command += [f"--{switch}={value}"] if value is not None else []
    return command + [flag for flag, on in (("--loss", options.loss), ("--json", options.json)) if on]


def explain(options: argparse.Namespace) -> int:
    """Let the trainer explain, in the place of this process."""
    # threads that spin while they wait slow down whatever else runs on this machine
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
    os.execve(sys.executable, explain_command(options), environment)  # noqa: S606 - terminal and signals are then its own
