"""The command line: one function for each verb of pipeline.verbs.

Heavy libraries are imported by the verb that needs them, so that --help answers at once.
"""

import argparse
import errno
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from pipeline.verbs import DEFAULT_CONFIG, parser
from schemas.errors import UserError

IO_ERROR, DEFECT = 4, 70


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    if options.verb is None:
        parser().print_help()
        return 2
    verb = {
        "data": _data,
        "train": _train,
        "generate": _generate,
        "chat": _chat,
        "explain": _explain,
        "look": _look,
        "duplicates": _duplicates,
        "check": _check,
        "funnel": _funnel,
    }[options.verb]
    try:
        return verb(options)
    except BrokenPipeError:  # `chatloom look ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the border to a person: each kind becomes a sentence and an exit code
        return _report(error)


def _report(error: Exception) -> int:
    """Print what a person needs to know of `error` and return the exit code; a defect of ours keeps its traceback."""
    if isinstance(error, UserError | OSError):
        is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        advice = ". Free some space there and run the same command again: what is done is kept" if is_full else ""
        print(f"chatloom: error: {error}{advice}", file=sys.stderr)  # noqa: T201
        return error.exit_code if isinstance(error, UserError) else IO_ERROR
    traceback.print_exception(error)
    print("chatloom: this is a defect of Chatloom; please report it with the lines above", file=sys.stderr)  # noqa: T201
    return DEFECT


def _data(options: argparse.Namespace) -> int:
    from rich.console import Console

    from pipeline.interrupt import Stop
    from pipeline.lean import keep_memory, leave_out

    leave_out()  # this process builds, and nothing else
    keep_memory()
    stop = Stop()
    stop.install()
    from pipeline.config import load_config
    from pipeline.run import build
    from pipeline.terminal import TerminalProgress

    limit = [f"source.limit={options.limit}"] if options.limit else []
    config = load_config(
        Path(options.config), assignments=[*options.set, *limit], inputs=options.input, run=options.run
    )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    progress = TerminalProgress(console, stop.check)
    console.print(f"chatloom data {options.config} -> {config.run}")
    workers = options.workers or len(os.sched_getaffinity(0))
    try:
        built = build(
            config,
            workers=workers,
            until=options.until,
            fresh=options.fresh,
            verify=options.verify,
            progress=progress,
        )
    except KeyboardInterrupt:
        progress.close()
        again = shlex.join(["chatloom", *(a for a in sys.argv[1:] if a != "--fresh")])
        console.print(f"stopped; what is built is kept. Go on with:\n{again}")
        return 130
    finally:
        progress.close()
    from pipeline.summary import summary

    return summary(console, config, built, command=_train_command(options))


def _train_command(options: argparse.Namespace) -> str:
    """Return the command that trains on what was just built."""
    words = ["chatloom", "train"]
    words += [options.config] if options.config != DEFAULT_CONFIG else []
    words += ["--run", options.run] if options.run else []
    for assignment in options.set:
        if assignment.startswith(("model.", "lora.", "train.", "generation.", "seed", "run")):
            words += ["--set", assignment]
    return shlex.join(words)


def _train(options: argparse.Namespace) -> int:
    from pipeline.launch import train

    return train(options)


def _generate(options: argparse.Namespace) -> int:
    from pipeline.interrupt import Stop
    from pipeline.lean import leave_out

    leave_out()
    Stop().install()
    from pipeline.generate import generate

    return generate(
        options.model,
        inputs=options.input,
        output=options.output,
        assignments=options.set,
        max_new_tokens=options.max_new_tokens,
        limit=options.limit,
        fresh=options.fresh,
    )


def _chat(options: argparse.Namespace) -> int:
    from pipeline.lean import leave_out

    leave_out()
    from pipeline.chat import chat

    return chat(options.model, system=options.system, assignments=options.set, max_new_tokens=options.max_new_tokens)


def _explain(options: argparse.Namespace) -> int:
    from pipeline.explain import explain

    return explain(options)


def _look(options: argparse.Namespace) -> int:
    from pipeline.look import look
    from pipeline.page import Page

    console = Page(highlight=False)
    for part in look(
        Path(options.run),
        options.stage,
        row=options.row,
        id=options.id,
        dropped=options.dropped,
        reason=options.reason,
        in_colour=console.is_terminal,
    ):
        console.print(part, soft_wrap=True)
    return 0


def _duplicates(options: argparse.Namespace) -> int:
    from pipeline.duplicates_page import duplicates_page
    from schemas.settings import ConfigError

    if options.id is not None and options.top is not None:
        raise ConfigError("--top says how many clusters of the run to show, --id asks for one row; give one of them")
    duplicates_page(Path(options.run), id=options.id, top=options.top or 10, as_json=options.json)
    return 0


def _check(options: argparse.Namespace) -> int:
    from pipeline.lean import leave_out

    leave_out()
    from pipeline.check_report import report

    return report(
        options.files,
        fields=options.field,
        threshold=options.threshold,
        as_json=options.json,
        output=options.output,
    )


def _funnel(options: argparse.Namespace) -> int:
    import json

    from pipeline.funnel import as_json, as_text
    from pipeline.page import Page
    from schemas.manifest import read_manifests
    from schemas.settings import ConfigError

    manifests = read_manifests(Path(options.run))
    if not manifests:
        raise ConfigError(
            f"{options.run}: no finished stage here; `chatloom data CONFIG --run {options.run}` builds them"
        )
    if options.json:
        print(json.dumps(as_json(manifests), indent=2))  # noqa: T201 - this is the output
    else:
        Page(highlight=False).print(as_text(manifests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
