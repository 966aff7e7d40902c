"""What can be typed: the verbs of the command line, and their --help. Imports nothing heavy."""

import argparse
from pathlib import Path
from typing import Final

from schemas.manifest import STAGES

VERSION: Final = "0.1.0"
DEFAULT_CONFIG: Final = "configs/tiny.toml"

_EPILOG: Final = """\
first steps:
  chatloom data                        build shards from the bundled sample, with configs/tiny.toml
  chatloom train                       fine-tune the small model on them
  chatloom chat runs/tiny              talk with the result
  chatloom look runs/tiny mask         see which tokens are trained
  chatloom funnel runs/tiny            see what was kept and dropped, and why
  chatloom duplicates runs/tiny        see which rows were taken for duplicates, and of what
  cp configs/sft.toml my.toml          for your own conversations: name them, and your model's tokenizer, in it
  chatloom data my.toml

exit codes: 0 done, 2 your input or settings, 3 the data breaks a promise, 4 disk, 75 the run is in use, 70 a bug,
130 stopped by Ctrl-C"""


_DUPLICATES_EPILOG: Final = """\
A row is removed when it is at least [clusters] threshold similar (exact Jaccard similarity of shingles, 1 = the same text) to
the row kept in its place, its keeper. If rows that are no duplicates of their keepers are removed, raise the threshold, or
leave boilerplate out of the comparison ([signatures] leave_out); if duplicates stay, lower it.

examples:
  chatloom duplicates runs/tiny                                      the whole run
  chatloom duplicates runs/tiny --id data/sample/messages.jsonl:7    one row, word by word
  chatloom look runs/tiny dedup --dropped --row 5                    a removed row, whole"""


_EXPLAIN_EPILOG: Final = """\
A training that stops because its loss is no number names the step and the conversations; this shows all of the step.

examples:
  chatloom explain runs/tiny --step 12                                  the conversations of step 12
  chatloom explain runs/tiny --step 12 --ranks 2 --loss                 which rank had them, and what each loses
  chatloom explain runs/tiny --id data/sample/messages.jsonl:7          when one conversation was trained"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    main_parser = argparse.ArgumentParser(
        prog="chatloom",
        description="Raw conversations in, packed and label-masked training shards out; and a trainer that reads them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main_parser.add_argument("--version", action="version", version=f"chatloom {VERSION}")
    verbs = main_parser.add_subparsers(dest="verb", metavar="VERB")
    for add in (
        _add_data,
        _add_train,
        _add_generate,
        _add_chat,
        _add_explain,
        _add_look,
        _add_duplicates,
        _add_check,
        _add_funnel,
    ):
        add(verbs)
    return main_parser


def _add_data(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    data = verbs.add_parser(
        "data",
        help="build training shards from conversations",
        description="Build training shards: ingest, length filter, near-duplicate removal, chat template, tokens, label mask, "
        "packs. Only what is not up to date is done; a build that was stopped goes on where it was.",
    )
    _add_config(data)
    data.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="PATH",
        help="file, directory, glob, URL or dataset; may be repeated",
    )
    data.add_argument(
        "--limit", type=_positive, metavar="N", help="read N records, drawn from all inputs ([source] limit)"
    )
    data.add_argument("--workers", type=_positive, metavar="N", help="processes (default: one per core)")
    data.add_argument(
        "--until",
        choices=STAGES,
        default=STAGES[-1],
        metavar="STAGE",
        help="stop after this stage: " + ", ".join(STAGES),
    )
    data.add_argument("--fresh", action="store_true", help="forget what is built and build everything anew")
    data.add_argument(
        "--verify", action="store_true", help="read every byte of what is built, and rebuild what is damaged"
    )


def _add_train(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = verbs.add_parser(
        "train",
        help="fine-tune a model on the shards",
        description="Fine-tune on a run's packs. Goes on from the last checkpoint if there is one.",
    )
    _add_config(train)
    train.add_argument(
        "--gpus",
        type=_positive,
        default=1,
        metavar="N",
        help="processes on this machine, one per GPU (on CPU: per rank)",
    )
    train.add_argument(
        "--restarts",
        type=_count,
        default=0,
        metavar="N",
        help="start it again from its newest checkpoint after up to N crashes of a process (default: 0)",
    )
    train.add_argument("--fresh", action="store_true", help="start over instead of going on from the last checkpoint")
    train.add_argument("--dry-run", action="store_true", help="say what would be trained, and stop")


def _add_generate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    generate = verbs.add_parser(
        "generate",
        help="answer a file of prompts with a trained model",
        description="Answer every conversation of a file with a model, written and encoded as in training, and write one JSON "
        "line each. The last answer of a conversation that has one is what is expected, and is answered anew.",
        epilog="examples:\n  chatloom generate runs/tiny --input data/held_out.jsonl\n"
        "  chatloom generate runs/tiny --input my.jsonl --output out.jsonl --set generation.temperature=0.8\n"
        "A file that is there is continued, if it is of the same model and settings.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(generate)
    generate.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="PATH",
        help="file, directory or glob of conversations; may be repeated (default: standard input)",
    )
    generate.add_argument(
        "--output",
        type=Path,
        default=Path("predictions.jsonl"),
        metavar="FILE",
        help="where the answers go (default: predictions.jsonl)",
    )
    generate.add_argument("--limit", type=_positive, metavar="N", help="answer the first N conversations only")
    generate.add_argument("--fresh", action="store_true", help="write the output anew instead of continuing it")


def _add_chat(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    chat = verbs.add_parser(
        "chat",
        help="talk with a trained model",
        description="Talk with a model in the terminal, or over a pipe: one question a line. /help says what else there is.",
        epilog='examples:\n  chatloom chat runs/tiny\n  chatloom chat runs/tiny --system "Answer in one word."\n'
        '  echo "Who are you?" | chatloom chat runs/tiny --set generation.temperature=0.7',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_model(chat)
    chat.add_argument("--system", metavar="TEXT", help="what stands before every conversation")


def _add_explain(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    explain = verbs.add_parser(
        "explain",
        help="show the conversations of a training step, or the steps of a conversation",
        description="Show which packs and conversations a step of a training took, in the order in which it took them, and "
        "what each loses; or, with --id, in which steps a conversation was trained. Needs the packs as they were trained.",
        epilog=_EXPLAIN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("run", metavar="RUN", help="run directory that was trained in, e.g. runs/tiny")
    which = explain.add_mutually_exclusive_group(required=True)
    which.add_argument("--step", type=_positive, metavar="N", help="a step as train/metrics.jsonl counts them, from 1")
    which.add_argument("--id", metavar="ID", help="a conversation, e.g. data/sample/messages.jsonl:7")
    explain.add_argument("--phase", metavar="NAME", help="the phase, in a training that has several")
    explain.add_argument("--ranks", type=_positive, metavar="W", help="say which of W ranks has each pack of the step")
    explain.add_argument(
        "--loss", action="store_true", help="measure what the newest checkpoint loses on each conversation of the step"
    )
    explain.add_argument("--json", action="store_true", help="print JSON")


def _add_look(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    look = verbs.add_parser(
        "look",
        help="show a row of any stage, readably",
        description="Show one row of a stage: messages, text by who wrote it, tokens with the trained ones in colour, or why "
        "a row was dropped.",
    )
    look.add_argument("run", metavar="RUN", help="run directory, e.g. runs/tiny")
    look.add_argument("stage", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    which = look.add_mutually_exclusive_group()
    which.add_argument("--row", type=int, default=0, metavar="N", help="which row, from 0 (default: 0)")
    which.add_argument("--id", metavar="ID", help="the conversation with this id, e.g. data/sample/messages.jsonl:7")
    look.add_argument("--dropped", action="store_true", help="look at what the stage dropped instead of what it kept")
    look.add_argument(
        "--reason",
        metavar="NAME",
        help="look at what it dropped for this reason, e.g. bad_json; --row counts them",
    )


def _add_duplicates(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    duplicates = verbs.add_parser(
        "duplicates",
        help="show which rows were taken for duplicates, and of what",
        description="Show what deduplication did to a run, worst things first: the largest clusters, each with the removed row "
        "that is least like the row kept in its place; how much of each source went; which rows contain evaluation records; and "
        "the splits. With --id, everything about one row, beside the row that it was compared with.",
        epilog=_DUPLICATES_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    duplicates.add_argument("run", metavar="RUN", help="run directory, e.g. runs/tiny")
    duplicates.add_argument("--top", type=_positive, metavar="N", help="how many clusters to show (default: 10)")
    duplicates.add_argument("--id", metavar="ID", help="show the row with this id, e.g. data/sample/messages.jsonl:7")
    duplicates.add_argument("--json", action="store_true", help="print JSON")


def _add_check(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = verbs.add_parser(
        "check",
        help="find near-duplicate texts in a small file, before any build",
        description="Find near-duplicates in the records of small files (at most 200,000), field by field, by the cosine of "
        "their TF-IDF vectors of 1 to 3 characters. Nothing is built; exit code 0 whatever is found.",
        epilog="examples:\n  chatloom check my.json\n  chatloom check my.jsonl --field messages[0].content --threshold 0.8\n"
        "  chatloom check my.json --field output --output clean.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "files", nargs="+", metavar="FILE", help="file, directory or glob, as for `chatloom data --input`"
    )
    check.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME",
        help="compare this field; a path like messages[0].content leads to it; may be repeated (default: all with text)",
    )
    check.add_argument(
        "--threshold", type=float, default=0.9, metavar="X", help="report pairs above this cosine (default: 0.9)"
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    check.add_argument("--output", metavar="FILE", help="write the records there without the second of each pair")


def _add_funnel(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    funnel = verbs.add_parser(
        "funnel",
        help="show what each stage kept and dropped, and why",
        description="Show conversations and tokens kept and dropped per stage and reason, from the manifests.",
    )
    funnel.add_argument("run", metavar="RUN", help="run directory, e.g. runs/tiny")
    funnel.add_argument("--json", action="store_true", help="print JSON")


def _add_config(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "config", nargs="?", default=DEFAULT_CONFIG, metavar="CONFIG", help=f"settings (default: {DEFAULT_CONFIG})"
    )
    verb.add_argument("--run", metavar="DIR", help="run directory (default: `run` in the config)")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting, e.g. --set length.min_chars=20; may be repeated",
    )


def _add_model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("model", metavar="MODEL", help="run directory, e.g. runs/tiny, or a Hugging Face model directory")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting of how answers are written, e.g. --set generation.temperature=0.8; may be repeated",
    )
    verb.add_argument("--max-new-tokens", type=_positive, metavar="N", help="longest answer, in tokens")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value
