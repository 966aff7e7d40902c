"""The pipeline's own stages give every planted record the fate that planted.json states."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.source import Source, expand, read_chunk, scan
from schemas.tables import CONVERSATIONS
from stages.clusters import Clusters, cluster_rows
from stages.dedup import Dedup, mark_duplicates
from stages.ingest import Ingest, ingest_lines
from stages.length import Length, mark_length
from stages.signatures import Signatures, sign_conversations

ROOT = Path(__file__).parents[2]
PLANTED: dict[str, Any] = json.loads((ROOT / "data/planted.json").read_text(encoding="utf-8"))
BOUNDS = PLANTED["bounds"]


def kept(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(pl.col("drop_reason").is_null()).drop("drop_reason")


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """Run the stages that may drop a record of the sample, on all of it at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # ids hold the path as given
        chunks = [
            chunk
            for path in expand(["data/sample/*"])[0]
            for chunk in scan(path, Source(), tmp_path_factory.mktemp("spool"))
        ]
        ingested = pl.concat([ingest_lines(read_chunk(chunk, Source()), Ingest()) for chunk in chunks])
    conversations = kept(ingested).select(CONVERSATIONS.names)
    measured = mark_length(conversations, Length(min_chars=BOUNDS["min_chars"], max_chars=BOUNDS["max_chars"]))
    rows = kept(measured)
    signed = sign_conversations(rows, Signatures())
    (clusters,) = cluster_rows([signed], Clusters(threshold=BOUNDS["threshold"]), dedup=Dedup())
    return {"ingest": ingested, "length": measured, "dedup": mark_duplicates(rows, clusters, Dedup())}


@pytest.mark.parametrize("stage", ["ingest", "length", "dedup"])
def test_each_stage_reports_the_stated_counts(marked: dict[str, pl.DataFrame], stage: str) -> None:
    frame = marked[stage]
    dropped = dict(frame["drop_reason"].drop_nulls().value_counts().iter_rows())
    got = {"in": frame.height, "kept": frame["drop_reason"].null_count(), "dropped": dropped}
    assert got == PLANTED["funnel"][stage]


@pytest.mark.parametrize("stage", ["ingest", "length"])
def test_each_planted_record_is_dropped_for_its_reason(marked: dict[str, pl.DataFrame], stage: str) -> None:
    dropped = marked[stage].filter(pl.col("drop_reason").is_not_null())
    reasons = PLANTED["reasons"][stage]
    expected = {entry["id"]: reason for kind, reason in reasons.items() for entry in PLANTED["planted"][kind]}
    assert dict(zip(dropped["id"], dropped["drop_reason"], strict=True)) == expected


def test_of_each_planted_pair_one_survives_and_the_other_names_it(marked: dict[str, pl.DataFrame]) -> None:
    frame = marked["dedup"]
    fate = dict(zip(frame["id"], zip(frame["keeper"], frame["drop_reason"], strict=True), strict=True))
    for kind, reason in PLANTED["reasons"]["dedup"].items():
        for entry in PLANTED["planted"][kind]:
            pair = (entry["id"], entry["of"])
            assert {fate[pair[0]], fate[pair[1]]} in ({(None, None), (keeper, reason)} for keeper in pair), pair


def test_conversations_about_control_tokens_survive(marked: dict[str, pl.DataFrame]) -> None:
    survivors = set(kept(marked["dedup"])["id"])
    assert {entry["id"] for entry in PLANTED["planted"]["control_text"]} <= survivors
