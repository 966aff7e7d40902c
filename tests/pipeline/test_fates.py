import pytest

from pipeline.fates import SourceLoss, contamination, largest_loss, percent, source_losses, splits_sentence
from schemas.manifest import Manifest, Totals


def manifests(counts: dict[str, int]) -> dict[str, Manifest]:
    totals = Totals(rows_in=9, kept=9, dropped={}, counts=counts)
    return {"clusters": Manifest(stage="clusters", key="", libraries={}, totals=totals, shards=())}


def test_sources_of_few_rows_stand_behind_however_much_they_lose():
    counts = {"rows/data/a.jsonl": 100, "lost/data/a.jsonl": 10, "rows/b": 99, "lost/b": 99, "rows/source:c": 500}
    assert source_losses(counts) == [
        SourceLoss("data/a.jsonl", 100, 10),
        SourceLoss("source:c", 500, 0),
        SourceLoss("b", 99, 99),
    ]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            {"rows/a": 1000, "lost/a": 100, "rows/b": 99, "lost/b": 99},
            "a lost 100 of 1,000 rows (10.0 %) to duplicates",
        ),
        ({"rows/a": 1000, "lost/a": 99}, None),
        ({"rows/b": 99, "lost/b": 99}, None),
        ({}, None),
    ],
)
def test_the_largest_loss_is_said_where_it_is_large(counts, said):
    assert largest_loss(manifests(counts)) == said


def test_contamination_says_whether_rows_were_dropped():
    counts = {"contaminated/data/eval.jsonl": 12, "contaminated/other.json": 0}
    assert list(contamination(manifests(counts))) == [
        "12 row(s) contain records of data/eval.jsonl (reported; nothing is dropped for it)"
    ]
    assert list(contamination(manifests(counts | {"reason/contaminated": 12}))) == [
        "12 row(s) contain records of data/eval.jsonl (dropped)"
    ]


def test_splits_are_said_in_one_line():
    counts = {"split/test": 10, "split/train": 970, "split/validation": 20}
    assert splits_sentence(manifests(counts)) == "splits: train 970 (97.0 %), validation 20 (2.0 %), test 10 (1.0 %)"
    assert splits_sentence(manifests({})) is None
    assert splits_sentence({}) is None


def test_only_the_whole_is_100_percent():
    assert percent(9_999_999, 10_000_000) == "99.99 %"
    assert percent(5, 5) == "100 %"
    assert percent(0, 5) == "0.0 %"
