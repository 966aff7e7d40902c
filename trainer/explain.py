"""The command behind `chatloom explain`: what a step of a training was made of, or which steps had a conversation."""

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from schemas.errors import UserError

if TYPE_CHECKING:
    from trainer.hindsight import Occurrence, Step, StepPack

EXAMPLES: Final = """\
examples:
  python -m trainer.explain runs/tiny --step 12              the conversations of step 12, in their order
  python -m trainer.explain runs/tiny --step 12 --ranks 2    and which of two ranks had them
  python -m trainer.explain runs/tiny --step 12 --loss       and what the newest checkpoint loses on each
  python -m trainer.explain runs/tiny --id data/sample/messages.jsonl:7    the steps that train this conversation
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the explanation and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        text = _answer(options)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"error: {error}\n")
        return 4
    with contextlib.suppress(BrokenPipeError):  # `chatloom explain ... | head`
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def _answer(options: argparse.Namespace) -> str:
    # torch takes its time, and --help needs none
    from trainer.course import read_plan
    from trainer.hindsight import look_at_step, look_for, with_losses

    run: Path = options.run
    course = read_plan(run, options.phase)
    if options.id is not None:
        found = look_for(run, course, options.id)
        return _json(found) if options.json else "".join(f"{line}\n" for line in _of_id(found, course.n_steps))
    step = look_at_step(run, course, options.step, ranks=options.ranks)
    if options.loss:
        from trainer.world import joined

        with joined() as world:
            step = with_losses(run, course, options.phase, step, world)
    return _json(step) if options.json else "".join(f"{line}\n" for line in _of_step(step))


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode() + "\n"


def _of_step(step: "Step") -> Iterator[str]:
    n = sum(len(pack.conversations) for pack in step.packs)
    tokens, trained = sum(pack.tokens for pack in step.packs), sum(pack.trained for pack in step.packs)
    yield f"step {step.step} of {step.n_steps}: epoch {step.epoch}, step {step.step_of_epoch} of it"
    yield f"{len(step.packs)} packs, {n} conversations, {tokens:,} tokens, {trained:,} of them trained"
    if step.weights is not None:
        yield f"losses by the weights of {step.weights}"
    width = max(len(one.id) for pack in step.packs for one in pack.conversations)
    for pack in step.packs:
        yield ""
        yield from _of_pack(pack, width, has_losses=step.weights is not None)


def _of_pack(pack: "StepPack", width: int, *, has_losses: bool) -> Iterator[str]:
    rank = "" if pack.rank is None else f", rank {pack.rank}"
    yield f"pack {pack.pack} ({pack.shard}, row {pack.row}{rank}): {pack.tokens:,} tokens, {pack.trained:,} trained"
    for one in pack.conversations:
        loss = f"  loss {_number(one.loss)}" if has_losses else ""
        end = one.position + one.tokens
        yield f"  {one.id:<{width}}  {one.position:>6}-{end:<6} {one.tokens:>6} tokens {one.trained:>6} trained{loss}"


def _number(loss: float | None) -> str:
    if loss is None:
        return "- (nothing is trained)"
    return f"{loss:.4f}" if math.isfinite(loss) else f"{loss}: not finite"


def _of_id(found: "Sequence[Occurrence]", n_steps: int) -> Iterator[str]:
    for one in found:
        yield f"{one.id}: {one.tokens:,} tokens, {one.trained:,} trained, from token {one.position} of pack {one.pack}"
        yield f"  ({one.shard}, row {one.row})"
        steps = ", ".join(map(str, one.steps)) or "none"
        yield f"  steps that take it: {steps} (of {n_steps})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.explain",
        description="Show what a step of a training was made of, or which steps had a conversation.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run directory that was trained in, e.g. runs/tiny")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--step", type=int, metavar="N", help="a step as metrics.jsonl counts them, from 1")
    which.add_argument("--id", metavar="ID", help="a conversation, e.g. data/sample/messages.jsonl:7")
    parser.add_argument("--phase", metavar="NAME", help="the phase, in a training that has several")
    parser.add_argument("--ranks", type=_positive, metavar="W", help="say which of W ranks has each pack of the step")
    parser.add_argument(
        "--loss", action="store_true", help="measure what the newest checkpoint loses on each conversation of the step"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
