"""A small corpus of many shards, written by the tests themselves."""

import json
import random
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SUBJECTS = [
    "river",
    "cloud",
    "engine",
    "violin",
    "garden",
    "planet",
    "teacher",
    "market",
    "winter",
    "letter",
    "bridge",
    "forest",
    "candle",
    "mirror",
    "island",
]
_VERBS = [
    "holds",
    "turns",
    "builds",
    "warms",
    "carries",
    "follows",
    "remembers",
    "crosses",
    "lifts",
    "paints",
    "measures",
    "answers",
    "opens",
    "guards",
]


def conversation(rng: random.Random, turns: int = 2) -> list[dict[str, str]]:
    """Return messages of random sentences, no two alike."""

    def sentence() -> str:
        words = [word for _ in range(rng.randint(2, 7)) for word in ("the", rng.choice(_SUBJECTS), rng.choice(_VERBS))]
        return " ".join(words).capitalize() + f" {rng.randint(0, 10_000)}."

    return [{"role": role, "content": sentence()} for _ in range(turns) for role in ("user", "assistant")]


def write_corpus(path: Path, n: int, *, seed: int = 0, bad_every: int = 0, copy_every: int = 0) -> Path:
    """Write `n` lines of JSONL; some broken, some near-copies of an earlier one, if so asked."""
    rng = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    earlier: list[list[dict[str, str]]] = []
    with path.open("w", encoding="utf-8") as file:
        for i in range(n):
            if bad_every and i % bad_every == bad_every - 1:
                file.write('{"messages": [\n')
                continue
            messages = conversation(rng, rng.randint(1, 4))
            if copy_every and i % copy_every == copy_every - 1:
                messages = [dict(message) for message in rng.choice(earlier)]
                messages[-1]["content"] += " Yes."
            earlier.append(messages)
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def write_config(directory: Path, inputs: Path | str, *, shard_bytes: int = 16 << 10, extra: str = "") -> Path:
    """Write a config whose run directory is `directory`/run."""
    path = directory / "config.toml"
    path.write_text(
        f'run = "{directory / "run"}"\n'
        f'[source]\ninputs = ["{inputs}"]\nshard_bytes = {shard_bytes}\n'
        f'[tokenize]\ntokenizer = "{ROOT / "data" / "tokenizer"}"\n'
        "[dedup]\nvalidation = 0.1\n[pack]\nmax_seq_len = 256\n" + extra
    )
    return path


def shards_of(run: Path) -> dict[str, bytes]:
    """Return every shard, record and manifest of a run, by path."""
    wanted = [*run.rglob("*.arrow"), *run.rglob("shards/*.json"), *run.rglob("manifest.json")]
    return {str(path.relative_to(run)): path.read_bytes() for path in wanted}
