"""What deduplication removes and what it leaves, from text to decisions, on cases that are easy to get wrong."""

import gzip
import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from bench.brute_force import Pairs, similar_pairs
from pipeline.config import load_config
from pipeline.run import build
from stages.clusters import Clusters, cluster_rows
from stages.dedup import Dedup
from stages.signatures import sign_conversations
from tests.corpus import ROOT
from tests.stages.signing import Message, configured, conversation, measured

CORPUS = ROOT.parent / "shared" / "data" / "realmix.jsonl.gz"


def fates(rows: Sequence[list[Message]], *, signatures: dict[str, Any] | None = None, **clusters: Any) -> pl.DataFrame:
    """Return (id, keeper, similarity) of conversations that came in this order."""
    signed = sign_conversations(measured(*rows), configured(**(signatures or {})))
    config = msgspec.convert({"max_source_loss": 1.0} | clusters, Clusters)
    return pl.concat(cluster_rows([signed], config, dedup=Dedup())).select("id", "keeper", "similarity")


def keepers(rows: Sequence[list[Message]], **settings: Any) -> list[int | None]:
    """Return of each conversation the place of the one that is kept for it, None if it stays."""
    lines = fates(rows, **settings)["keeper"].str.extract(r":(\d+)$").cast(pl.Int64) - 1
    return lines.to_list()


def words(*numbers: int) -> str:
    """Return different words of one length: n of them have n - 4 shingles."""
    return " ".join(f"w{number:05d}" for number in numbers)


# --- chains and stars


def test_a_chain_of_near_copies_loses_only_what_is_similar_to_a_row_that_stays():
    # 100 shingles each; neighbours share 90 of 110 (0.82), the next but one 80 of 120 (0.67), the ends 70 of 130
    chain = [conversation(("user", words(*range(10 * k, 10 * k + 104)))) for k in range(4)]
    for order in itertools.permutations(range(4)):
        found = keepers([chain[k] for k in order], keep="first")
        stayed = {order[i] for i, keeper in enumerate(found) if keeper is None}
        went = {order[i]: order[keeper] for i, keeper in enumerate(found) if keeper is not None}
        assert len(stayed) == 2
        assert all(abs(row - keeper) == 1 and keeper in stayed for row, keeper in went.items())
        assert not any({k, k + 1} <= stayed for k in range(3))
    assert keepers(chain, keep="first") == [None, 0, None, 2]
    assert fates(chain, keep="first")["similarity"].to_list() == [None, 90 / 110, None, 90 / 110]


def test_a_star_goes_though_its_rays_are_strangers_to_each_other():
    middle = list(range(104))
    # each ray has 10 other words at another place, in a run: 14 of 100 shingles change, rays share 72 of 128
    rays = [[*middle[:at], *range(1000 + at, 1010 + at), *middle[at + 10 :]] for at in (10, 40, 70)]
    rows = [conversation(("user", words(*numbers))) for numbers in (middle, *rays)]
    assert keepers(rows, keep="first", threshold=0.75) == [None, 0, 0, 0]
    assert keepers(rows[1:], keep="first", threshold=0.75) == [None, None, None]


# --- boilerplate

OPENING = words(*range(200))


def of_one_template(n: int, opening: str) -> list[list[Message]]:
    """Return conversations with one opening, a question of eight words, and an answer of twelve."""
    return [
        conversation(
            ("user", f"{opening} {words(*range(1000 + 20 * i, 1008 + 20 * i))}"),
            ("assistant", words(*range(1008 + 20 * i, 1020 + 20 * i))),
        )
        for i in range(n)
    ]


def test_a_long_system_prompt_in_common_makes_no_duplicates():
    rows = [[*conversation(("system", OPENING)), *row] for row in of_one_template(20, "")]
    assert keepers(rows) == [None] * 20
    with_system = keepers(rows, signatures={"includes_system": True})
    assert with_system.count(None) == 1, "counted, it would be most of the text"


@pytest.mark.parametrize(
    "settings",
    [
        {"signatures": {"leave_out": ["^w00000 .* w00199"]}},
        {"ignore_common": 0.5},
        {"signatures": {"scope": "turns"}},
    ],
    ids=["leave_out", "ignore_common", "turns"],
)
def test_a_long_opening_in_common_makes_no_duplicates_where_the_settings_say_so(settings):
    rows = of_one_template(30, OPENING)
    assert keepers(rows).count(None) == 1, "as it stands, it is most of the text"
    near = [dict(message) for message in rows[7]]
    near[1]["content"] = f"{near[1]['content']} indeed"
    found = keepers([*rows, near], **settings)
    assert [i for i, keeper in enumerate(found) if keeper is not None] == [7]
    assert found[7] == 30, "a true copy is still found; the longer one stays"


def test_only_what_is_in_common_does_not_count_and_short_own_parts_are_told_apart():
    rows = [conversation(("user", OPENING), ("assistant", answer)) for answer in ("yes", "no", "Yes!", "maybe", "no")]
    found = keepers(rows, signatures={"scope": "turns"}, keep="first")
    assert found == [None, None, 0, None, 1]


# --- short and empty texts

SHORT = [
    "ok",
    "OK!",
    "okay",
    "ok ok",
    "thanks",
    "Thanks",
    "thanks a lot",
    "好的",
    "好的。",
    "好",
    "好的好的",
    "👍",
    "👍👍",
]


@pytest.mark.parametrize("scope", ["conversation", "answer", "turns"])
def test_short_texts_survive_unless_they_are_equal(scope):
    rows = [conversation(("user", "hi"), ("assistant", text)) for text in SHORT]
    found = fates(rows, signatures={"scope": scope}, keep="first", threshold=0.5)
    kept_for = found["keeper"].str.extract(r":(\d+)$").cast(pl.Int64).to_list()
    pairs = {SHORT[i]: SHORT[line - 1] for i, line in enumerate(kept_for) if line is not None}
    assert pairs == {"OK!": "ok", "Thanks": "thanks", "好的。": "好的"}
    assert found["similarity"].drop_nulls().to_list() == [1.0] * 3


@pytest.mark.parametrize(
    "scope", ["conversation", "prompt", "answer", "turns", ["conversation", "prompt", "answer", "turns"]]
)
def test_texts_without_a_word_are_copies_of_nothing(scope):
    empty = ["", " \n\t", "?!…", "\u200b", None]
    rows = [conversation(("user", text), ("assistant", other)) for text in empty for other in empty]
    assert keepers(rows, signatures={"scope": scope}) == [None] * 25
    rows = [conversation(("system", OPENING), ("user", text), ("assistant", "")) for text in empty]
    assert keepers(rows, signatures={"scope": scope}) == [None] * 5


# --- the order of the input


def families(rng: random.Random) -> list[dict[str, Any]]:
    """Return records of 60 texts with near copies of every degree; words of one length, so that many are as long as others."""
    records = []
    for family in range(60):
        base = [f"f{family:02d}x{k:03d}" for k in range(40)]
        for _ in range(rng.randint(1, 7)):
            text = list(base)
            for _ in range(rng.randint(0, 2)):
                text[rng.randrange(40)] = f"f{family:02d}y{rng.randrange(1000):03d}"
            text += ["end"] * rng.randint(0, 1)
            if rng.random() < 0.3:
                base = text  # so that copies drift
            messages = conversation(("user", " ".join(text[:10])), ("assistant", " ".join(text[10:])))
            records.append({"messages": messages, "quality": rng.choice([0.25, 0.5, 0.75, None])})
    return records


def survivors(directory: Path, records: Sequence[dict[str, Any]], clusters: str, *, workers: int = 1) -> list[str]:
    """Return what stays of the records, in files written in their order, as text without where it stood."""
    directory.mkdir()
    half = len(records) // 2
    for name, part in (("a", records[:half]), ("b", records[half:])):
        text = "".join(json.dumps(record) + "\n" for record in part)
        (directory / f"{name}.jsonl").write_text(text, encoding="utf-8")
    (directory / "c.toml").write_text(
        f'run = "{directory}/run"\n[source]\ninputs = ["{directory}/*.jsonl"]\nshard_bytes = 16384\n'
        f'[ingest]\nscore = "quality"\n[clusters]\nmax_source_loss = 1.0\n{clusters}\n'
    )
    build(load_config(directory / "c.toml"), until="dedup", workers=workers)
    kept = pl.concat([pl.read_ipc(path) for path in sorted((directory / "run/dedup/kept").glob("*.arrow"))])
    said = ["messages", "split"] + ["score"] * ("score" in clusters)  # of equal texts any may stay if no score decides
    return sorted(kept.select(pl.struct(said).struct.json_encode()).to_series())


@pytest.mark.parametrize(
    "clusters",
    ['keep = "longest"', 'keep = "shortest"', 'keep = "score"', "copies = 2", "copies = 0", "ignore_common = 0.02"],
)
def test_the_order_of_lines_and_files_changes_no_survivor(clusters, tmp_path):
    rng = random.Random(5)
    records = families(rng)
    expected = survivors(tmp_path / "0", records, clusters)
    assert 30 <= len(expected) < 0.95 * len(records)
    for i in range(1, 3):
        rng.shuffle(records)
        assert survivors(tmp_path / str(i), records, clusters) == expected


@pytest.mark.slow
def test_one_worker_or_two_and_any_order_leave_the_same_texts(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.pool.ENOUGH_BYTES", 0)
    rng = random.Random(6)
    records = families(rng)
    expected = survivors(tmp_path / "1", records, 'keep = ["score", "longest"]')
    rng.shuffle(records)
    assert survivors(tmp_path / "2", records, 'keep = ["score", "longest"]', workers=2) == expected


# --- real conversations, against brute force


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Return the signatures of 5,000 real conversations."""
    directory = tmp_path_factory.mktemp("realmix")
    with gzip.open(CORPUS, "rb") as packed:
        lines = random.Random(0).sample(packed.readlines(), 5_000)
    (directory / "part.jsonl").write_bytes(b"".join(lines))
    (directory / "c.toml").write_text(f'run = "{directory}/run"\n[source]\ninputs = ["{directory}/part.jsonl"]\n')
    build(load_config(directory / "c.toml"), until="signatures")
    return pl.concat([pl.read_ipc(path) for path in sorted((directory / "run/signatures/kept").glob("*.arrow"))])


@pytest.fixture(scope="module")
def all_pairs(sample: pl.DataFrame) -> Pairs:
    return similar_pairs(sample, 0.7)


@pytest.mark.realmix
@pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not beside the project")
@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_every_removed_row_is_right_and_none_is_missed_on_real_conversations(threshold, sample, all_pairs):
    pairs = all_pairs.at(threshold)
    order = sample.with_row_index().sort(-pl.col("n_chars"), "text_hash", "content_hash", "index")["index"].to_list()
    expected = pairs.removed(order)
    out = pl.concat(cluster_rows([sample], Clusters(threshold=threshold, max_source_loss=1.0), dedup=Dedup()))
    removed = out["keeper"].is_not_null().to_numpy()
    assert expected.sum() > 40
    similar = dict(zip(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True), pairs.similarity, strict=True))
    row_of = {name: row for row, name in enumerate(out["id"])}
    for name, keeper, similarity in (
        out.filter(pl.col("keeper").is_not_null()).select("id", "keeper", "similarity").rows()
    ):
        assert similar[row_of[name], row_of[keeper]] == similarity
        assert not removed[row_of[keeper]]
    missed = pairs.among(~removed).removed(order).sum()
    assert missed <= 0.001 * expected.sum()
    assert (removed != expected).sum() <= 0.002 * expected.sum()
    assert np.array_equal(pairs.beside(~removed) & removed, removed)
