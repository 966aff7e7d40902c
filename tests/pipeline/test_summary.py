"""What a build says at its end of duplicates, contamination and splits."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.config import load_config
from pipeline.execute import Timing
from pipeline.run import Built
from pipeline.summary import summary
from schemas.manifest import Manifest, Totals


def said(tmp_path: Path, counts: dict[str, int], config: str = "", **more: Totals) -> list[str]:
    (tmp_path / "my.toml").write_text(f'run = "runs/my"\n[source]\ninputs = ["a"]\n{config}')
    totals = more | {
        "clusters": Totals(rows_in=1000, kept=1000, dropped={}, counts=counts),
        "pack": Totals(rows_in=700, kept=700, dropped={}, tokens=10),
    }
    manifests = {
        name: Manifest(stage=name, key="", libraries={}, totals=of_stage, shards=())
        for name, of_stage in totals.items()
    }
    console = Console(file=io.StringIO(), width=200, soft_wrap=True, markup=False)
    built = Built(manifests=manifests, timings=[Timing("pack", 0, 700, 1.0, 0.0)], n_shards=1)
    summary(console, load_config(tmp_path / "my.toml"), built, command="chatloom train")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_contamination_that_is_only_reported_is_mentioned_with_where_to_look(tmp_path):
    lines = said(tmp_path, {"contaminated/data/eval.jsonl": 12})
    assert (
        "note: 12 row(s) contain records of data/eval.jsonl (reported; nothing is dropped for it): chatloom duplicates runs/my"
        in lines
    )


def test_the_largest_loss_is_mentioned_if_it_is_large(tmp_path):
    lines = said(tmp_path, {"rows/a.jsonl": 1000, "lost/a.jsonl": 300, "rows/b.jsonl": 1000, "lost/b.jsonl": 200})
    notes = [line for line in lines if line.startswith("note: ")]
    assert notes == ["note: a.jsonl lost 300 of 1,000 rows (30.0 %) to duplicates: chatloom duplicates runs/my"]


@pytest.mark.parametrize("counts", [{}, {"rows/a.jsonl": 1000, "lost/a.jsonl": 10, "reason/near_duplicate": 10}])
def test_nothing_is_mentioned_where_nothing_is_remarkable(tmp_path, counts):
    assert not [line for line in said(tmp_path, counts) if line.startswith("note: ")]


@pytest.mark.parametrize(
    ("dropped", "expected"),
    [
        ({"not_sampled": 900}, []),
        ({"not_sampled": 900, "bad_json": 20}, []),
        ({"not_sampled": 900, "bad_json": 30}, ["note: ingest dropped 30% of its conversations. Mostly bad_json (30)"]),
    ],
)
def test_what_is_not_in_the_sample_is_no_loss(tmp_path, dropped: dict[str, int], expected: list[str]):
    kept = 1000 - sum(dropped.values())
    lines = said(tmp_path, {}, ingest=Totals(rows_in=1000, kept=kept, dropped=dropped))
    assert [
        line.partition(":")[0] + ":" + line.split(":")[1] for line in lines if line.startswith("note: ")
    ] == expected


def test_splits_are_said_in_one_line(tmp_path):
    lines = said(tmp_path, {"split/train": 650, "split/validation": 30, "split/test": 20})
    assert "splits: train 650 (92.9 %), validation 30 (4.3 %), test 20 (2.9 %)" in lines
    assert lines[-1].startswith("done: 700 conversations")


@pytest.mark.parametrize(
    ("config", "counts", "expected"),
    [
        (
            "validation = 50",
            {"train": 500},
            ["note: [dedup] validation = 50: 0 of 500 conversations are held out, for"],
        ),
        (
            "test = 50",
            {"train": 440, "validation": 11, "test": 49},
            ["note: [dedup] test = 50: 49 of 500 conversations"],
        ),
        ("test = 50", {"train": 439, "validation": 11, "test": 50}, []),
        ("validation = 0.02", {"train": 250}, ["note: [dedup] validation = 0.02: 0 of 250 conversations are held out"]),
        ("validation = 0.02", {"train": 249}, []),
        ("validation = 0.0", {"train": 1000}, []),
        ("validation = 50", {}, []),
    ],
)
def test_a_split_that_could_not_be_filled_is_mentioned(tmp_path, config, counts, expected):
    lines = said(tmp_path, {f"split/{name}": n for name, n in counts.items()}, f"[dedup]\n{config}\n")
    notes = [line for line in lines if line.startswith("note: ")]
    assert len(notes) == len(expected)
    assert all(note.startswith(start) for note, start in zip(notes, expected, strict=True))
