"""Builds of the bundled sample with so short a limit that many conversations are too long, by every policy."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.config import load_config
from pipeline.look import look
from pipeline.run import Built, build
from tests.corpus import ROOT

LIMIT = 48


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("too_long") / "run"


@pytest.fixture(scope="module")
def whole(run: Path) -> pl.DataFrame:
    """Conversations as they are masked where none is too long."""
    built(run, "drop", 1 << 15)
    return rows(run, "mask")


def built(run: Path, policy: str, limit: int, *others: str) -> Built:
    settings = [f"tokenize.too_long={policy}", f"pack.max_seq_len={limit}", *others]
    return build(load_config(ROOT / "configs" / "tiny.toml", assignments=settings, run=str(run)))


def rows(run: Path, stage: str, half: str = "kept") -> pl.DataFrame:
    files = sorted((run / stage / half).rglob("*.arrow"))
    assert files
    frame = pl.concat(pl.read_ipc(path) for path in files)
    if "id" in frame.columns:
        frame = frame.with_columns(conversation=pl.col("id").str.replace(r"#\d+$", ""))
    return frame


@pytest.mark.parametrize("policy", ["drop", "keep_turns", "windows", "truncate_head"])
def test_a_build_keeps_what_its_policy_says_and_counts_the_rest(run, whole, monkeypatch, policy):
    monkeypatch.chdir(ROOT)
    manifests = built(run, policy, LIMIT).manifests
    totals = manifests["tokenize"].totals
    n_long = whole.filter(pl.col("n_tokens") > LIMIT).height
    assert n_long > 20
    assert totals.rows_in == whole.height
    assert totals.counts["too_long"] == n_long
    assert totals.counts["what_if/drop/conversations"] == n_long
    lost = totals.counts[f"what_if/{policy}/conversations"]
    assert totals.dropped == {"over_max_seq_len": lost}
    assert totals.kept == whole.height - lost
    assert manifests["pack"].totals.dropped == {}

    kept, dropped = rows(run, "mask"), rows(run, "tokenize", "dropped")
    assert kept["n_tokens"].max() <= LIMIT
    assert set(kept["conversation"]) | set(dropped["conversation"]) == set(whole["id"])
    assert not set(kept["conversation"]) & set(dropped["conversation"])
    assert dropped["what_if"].null_count() == 0
    trained = kept.group_by("conversation").agg(pl.col("n_supervised").cast(pl.Int64).sum())
    both = trained.join(whole.select("id", whole="n_supervised"), left_on="conversation", right_on="id")
    assert both.filter(pl.col("n_supervised") > pl.col("whole")).height == 0  # nothing is trained twice
    n_cut = both.filter(pl.col("n_supervised") < pl.col("whole")).height
    assert (n_cut > 0) == (totals.counts["cut/turns"] > 0)
    packed = rows(run, "pack")["ids"].explode().to_list()
    assert sorted(packed) == sorted(kept["id"])
    assert (len(packed) > totals.kept) == (policy == "windows")


def test_a_conversation_is_found_by_its_id_though_it_was_cut_into_windows(run, whole, monkeypatch):
    monkeypatch.chdir(ROOT)
    built(run, "windows", LIMIT)
    name = next(name for name in rows(run, "mask")["id"] if name.endswith("#2")).removesuffix("#2")
    for stage in ("tokenize", "mask", "pack"):
        shown = "\n".join(map(str, look(run, stage, row=0, id=name, dropped=False, in_colour=False)))
        assert f"{name}#1" in shown


@pytest.mark.parametrize("without_stop", ["train", "mask"])
def test_the_mask_decides_whether_cut_answers_are_trained(run, whole, monkeypatch, without_stop):
    monkeypatch.chdir(ROOT)
    plain = built(run, "windows", LIMIT).manifests["tokenize"].totals
    manifests = built(run, "windows", LIMIT, "tokenize.cut_answers=true", f"mask.without_stop={without_stop}").manifests
    tokenize, mask = manifests["tokenize"].totals, manifests["mask"].totals
    n_cut = tokenize.counts["cut/answers"]
    assert n_cut > 20
    assert tokenize.counts["what_if/windows/turns"] < plain.counts["what_if/windows/turns"]
    assert tokenize.dropped.get("over_max_seq_len", 0) < plain.dropped["over_max_seq_len"]
    n_endless = mask.counts["turns/trained"] - mask.counts["turns/stopped"]
    kept = rows(run, "mask")
    assert kept["n_tokens"].max() <= LIMIT
    ends_trained = kept.filter(pl.col("labels").list.last() != -100, pl.col("n_tokens") >= LIMIT - 3).height
    if without_stop == "train":
        assert n_endless == n_cut
        assert mask.dropped == {}
        assert ends_trained >= n_cut
    else:
        assert n_endless == 0
        assert mask.dropped == {"nothing_to_learn": n_cut}  # windows of their own, in which nothing else is new
