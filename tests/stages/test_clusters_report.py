"""What clusters counts of a shard."""

import polars as pl

from schemas.conform import conform
from schemas.tables import CLUSTERED
from stages.clusters.report import count_duplicates
from tests.stages.signed_rows import signed


def clustered(*rows: dict[str, object]) -> pl.DataFrame:
    table = [
        {"id": f"a:{i + 1}", "cluster": "c", "n_duplicates": 1, "split": "train"} | row for i, row in enumerate(rows)
    ]
    empty = pl.DataFrame(pl.from_arrow(CLUSTERED.empty_table()))
    frame = (
        pl.concat([empty, pl.DataFrame(table, infer_schema_length=None)], how="diagonal_relaxed") if table else empty
    )
    return pl.DataFrame(pl.from_arrow(conform(frame.to_arrow(), CLUSTERED)))


def near(similarity: float, scope: str = "conversation") -> dict[str, object]:
    return {"reason": "near_duplicate", "keeper": "b:1", "similarity": similarity, "scope": scope}


OUT = clustered(
    near(0.8),
    near(0.849),
    near(0.85, "prompt"),
    near(1.0) | {"reason": "exact_duplicate"},
    {"split": "validation"},
    {"evaluation": "eval/set.jsonl:12", "overlap": 0.7},
    {"evaluation": "eval/set.jsonl:3.2", "overlap": 1.0, "reason": "contaminated"},
    {"reason": "all_copies"},
)
TAGS = [["source:w"], [], ["source:w"], [], ["source:w", "x"], [], [], []]


def test_everything_that_happened_to_a_shard_is_counted() -> None:
    rows = signed([{}] * 8, source="d/a.jsonl", tags=TAGS)
    assert count_duplicates(OUT, rows, None) == {
        "rows/d/a.jsonl": 8,
        "lost/d/a.jsonl": 6,
        "rows/source:w": 3,
        "lost/source:w": 2,
        "reason/all_copies": 1,
        "reason/contaminated": 1,
        "reason/exact_duplicate": 1,
        "reason/near_duplicate": 3,
        "scope/conversation": 3,
        "scope/prompt": 1,
        "similarity/0.80": 2,
        "similarity/0.85": 1,
        "similarity/1.00": 1,
        "contaminated/eval/set.jsonl": 2,
        "split/train": 1,
        "split/validation": 1,
    }


def test_counts_of_shards_add_up() -> None:
    rows = signed([{}] * 8, tags=TAGS)
    whole = count_duplicates(OUT, rows, None)
    parts = [count_duplicates(OUT[part], rows[part], None) for part in (slice(0, 3), slice(3, 3), slice(3, 8))]
    assert parts[1] == {}
    assert {name: sum(part.get(name, 0) for part in parts) for name in whole} == whole


def test_every_similarity_falls_into_the_band_that_begins_at_or_below_it() -> None:
    for k in range(1, 21):
        for similarity, band in ((k / 20, k), (k / 20 - 1e-6, k - 1)):
            counts = count_duplicates(clustered(near(similarity)), signed([{}]), None)
            assert f"similarity/{band / 20:.2f}" in counts
