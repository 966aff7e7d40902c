"""Write the sample: `python data/generate.py [--out data/sample] [--seed 0]`.

The same seed gives the same bytes on every machine. Beside the sample go `planted.json`, which states the fate of every
planted record, and `held_out.jsonl`, questions that the sample never asks, with their answers.
"""

import argparse
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from compose import Composer, Record
from languages import CHINESE, ENGLISH, Language
from plant import (
    MAX_CHARS,
    MIN_CHARS,
    STAGES,
    control_texts,
    malformed,
    malformed_sharegpt,
    restyle,
    reword,
    too_long,
    too_short,
)
from shapes import WRITERS, dump, gzip_stored
from similarity import jaccard, shingles
from skills import held_out_turns, shuffled

MULTI_TURN: Final = ("messages.jsonl", "conversations.jsonl", "sharegpt.json")
SHAPES: Final = {
    "messages.jsonl": "messages",
    "conversations.jsonl": "conversations",
    "sharegpt.json": "sharegpt",
    "alpaca.jsonl": "alpaca",
    "prompt_completion.jsonl.gz": "prompt_completion",
}
PLAIN: Final = {
    "messages.jsonl": 1500,
    "conversations.jsonl": 1150,
    "sharegpt.json": 900,
    "alpaca.jsonl": 450,
    "prompt_completion.jsonl.gz": 300,
}
"""Ordinary records per file."""
N_EXACT, N_RESTYLED, N_NEAR, N_TOO_LONG, N_CONTROL, N_HELD_OUT = 36, 30, 48, 5, 18, 60
BLANK_LINES: Final = {"messages.jsonl": 2, "conversations.jsonl": 1}


@dataclass(eq=False)
class Item:
    """One line to be: a record or raw bytes, why it is there, and what it is a copy of."""

    kind: str
    record: Record | None = None
    raw: bytes = b""
    original: "Item | None" = None
    id: str = field(default="", init=False)


def plant_duplicates(rng: random.Random, files: dict[str, list[Item]]) -> None:
    """Copy ordinary conversations, each at most once, into another file and shape."""
    originals = [
        (name, item)
        for name in MULTI_TURN
        for item in files[name]
        if item.record and item.record.messages[0][0] != "system"
    ]
    wanted = {"exact_duplicate": N_EXACT, "restyled_duplicate": N_RESTYLED, "near_duplicate": N_NEAR}
    for name, item in shuffled(rng, originals):
        kind = next((kind for kind, left in wanted.items() if left), None)
        if kind is None or item.record is None:
            break
        copy: Record | None = item.record
        if kind != "exact_duplicate":
            copy = restyle(rng, item.record) if kind == "restyled_duplicate" else reword(rng, item.record)
        if copy is None:  # the conversation is too short for a change this small
            continue
        other = MULTI_TURN[(MULTI_TURN.index(name) + 1) % len(MULTI_TURN)]
        files[other].append(Item(kind, copy, original=item))
        wanted[kind] -= 1


def plan(rng: random.Random) -> dict[str, list[Item]]:
    """Draw every line of every file, in its final order."""
    composer = Composer(rng)
    files: dict[str, list[Item]] = {}
    for name, count in PLAIN.items():
        if name in MULTI_TURN:
            share = 0.3 if name == "messages.jsonl" else 0.0
            files[name] = [Item("plain", composer.conversation(system_share=share)) for _ in range(count)]
        elif name == "alpaca.jsonl":
            files[name] = [Item("plain", composer.instruction()) for _ in range(count)]
        else:
            files[name] = [Item("plain", composer.without_input()) for _ in range(count)]
    plant_duplicates(rng, files)
    for number, record in enumerate(too_short()):
        files[list(SHAPES)[number % len(SHAPES)]].append(Item("too_short", record))
    for number, record in enumerate(too_long(composer, N_TOO_LONG)):
        files[MULTI_TURN[number % len(MULTI_TURN)]].append(Item("too_long", record))
    for number, record in enumerate(control_texts(composer, N_CONTROL)):
        files[MULTI_TURN[number % len(MULTI_TURN)]].append(Item("control_text", record))
    for name, shape in SHAPES.items():
        lines = malformed_sharegpt() if shape == "sharegpt" else malformed(composer, shape)
        files[name] += [Item(kind, raw=raw) for kind, raw in lines]
        files[name] += [Item("blank") for _ in range(BLANK_LINES.get(name, 0))]
        files[name] = shuffled(rng, files[name])
    return files


def encode(name: str, items: list[Item]) -> bytes:
    """Write one file and tell each item its id."""
    shape, lines = SHAPES[name], []
    for number, item in enumerate(items, start=1):
        item.id = f"data/sample/{name}:{number}"
        lines.append(dump(WRITERS[shape](item.record, number)) if item.record else item.raw)
    if name.endswith(".json"):
        return b"[\n  " + b",\n  ".join(lines) + b"\n]\n"
    if shape == "conversations":  # as some editors save it
        return b"".join(line + b"\r\n" for line in lines)
    if shape == "alpaca":  # without the last line end
        return b"\n".join(lines)
    data = b"".join(line + b"\n" for line in lines)
    return gzip_stored(data) if name.endswith(".gz") else data


def funnel(counts: Counter[str]) -> dict[str, Any]:
    """State what each stage that can drop a sample's record receives and drops."""
    stages: dict[str, Any] = {}
    left = sum(counts.values())
    for stage, reasons in STAGES.items():
        dropped: Counter[str] = Counter()
        for kind, reason in reasons.items():
            dropped[reason] += counts[kind]
        stages[stage] = {"in": left, "kept": left - dropped.total(), "dropped": dict(sorted(dropped.items()))}
        left -= dropped.total()
    return stages


def describe(files: dict[str, list[Item]], *, seed: int) -> dict[str, Any]:
    """Tell the truth about the sample: what is in each file, and the fate of every planted record."""
    planted: dict[str, list[dict[str, Any]]] = {}
    for items in files.values():
        for item in items:
            if item.kind in ("plain", "blank"):
                continue
            entry: dict[str, Any] = {"id": item.id}
            if item.original and item.record and item.original.record:
                entry["of"] = item.original.id
                similarity = jaccard(shingles(item.record.text), shingles(item.original.record.text))
                entry["similarity"] = round(similarity, 4)
            planted.setdefault(item.kind, []).append(entry)
    counts = {name: Counter(item.kind for item in items) for name, items in files.items()}
    total: Counter[str] = Counter()
    for count in counts.values():
        total += count
    del total["blank"]
    return {
        "seed": seed,
        "bounds": {"min_chars": MIN_CHARS, "max_chars": MAX_CHARS, "threshold": 0.8},
        "reasons": STAGES,
        "funnel": funnel(total),
        "files": {
            name: {
                "shape": SHAPES[name],
                "lines": len(items),
                "records": len(items) - counts[name]["blank"],
                "counts": dict(sorted(counts[name].items())),
            }
            for name, items in files.items()
        },
        "planted": dict(sorted(planted.items())),
    }


def held_out(rng: random.Random, language: Language, count: int) -> list[dict[str, Any]]:
    """Draw questions that the sample never asks, evenly over the skills."""
    per_skill = [
        [(skill.name, missing, turn) for missing, turn in shuffled(rng, list(held_out_turns(skill)))]
        for skill in language.skills
    ]
    depth = max(len(questions) for questions in per_skill)
    in_turn = [questions[place] for place in range(depth) for questions in per_skill if place < len(questions)]
    return [
        {
            "skill": skill,
            "language": language.code,
            "unseen": missing,
            "messages": [{"role": "user", "content": question}],
            "answer": answer,
        }
        for skill, missing, (question, answer) in in_turn[:count]
    ]


def main() -> None:
    """Write the sample, planted.json and held_out.jsonl."""
    parser = argparse.ArgumentParser(description="Write the sample that the quick start trains on.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sample", help="folder of the sample")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out
    rng = random.Random(arguments.seed)
    files = plan(rng)
    out.mkdir(parents=True, exist_ok=True)
    for name, items in files.items():
        (out / name).write_bytes(encode(name, items))
    truth = json.dumps(describe(files, seed=arguments.seed), ensure_ascii=False, indent=1)
    (out.parent / "planted.json").write_bytes(truth.encode() + b"\n")
    questions = held_out(rng, ENGLISH, N_HELD_OUT) + held_out(rng, CHINESE, N_HELD_OUT // 2)
    (out.parent / "held_out.jsonl").write_bytes(b"".join(dump(question) + b"\n" for question in questions))
    n_records = sum(item.kind != "blank" for items in files.values() for item in items)
    print(f"{out}: {n_records} records in {len(files)} files")


if __name__ == "__main__":
    main()
