"""A hundred thousand lines, most of them hostile, are accounted for one by one; and so are lines changed at random."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.source import Source, read_chunk, scan
from schemas.reasons import DropReason
from stages.ingest import Ingest, ingest_lines
from tests import torture
from tests.corpus import write_config
from tests.stages.rows import records

N = 100_000


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[torture.Line, int, int]]]:
    """Return a run of such a file, built by the command with two worker processes, and what is in the file."""
    home = tmp_path_factory.mktemp("torture")
    placed = torture.write(home / "lines.jsonl", N)
    settings = f"max_line_bytes = {torture.CAP}\n"
    config = write_config(home, home / "lines.jsonl", shard_bytes=4 << 20)
    config.write_text(config.read_text().replace("shard_bytes", settings + "shard_bytes"))
    command = [sys.executable, "-m", "pipeline.cli", "data", str(config), "--until", "ingest", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2_000:]
    return home, placed


def halves(home: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    kept, dropped = (pl.scan_ipc(home / f"run/ingest/{half}/*.arrow").collect() for half in ("kept", "dropped"))
    return kept, dropped


def test_every_line_is_a_row_or_has_the_reason_that_it_was_made_for(built):
    home, placed = built
    kept, dropped = halves(home)
    expected = {number: line for line, number, _ in placed if line.is_record}
    reasons = dict(zip(dropped["line"].to_list(), dropped["drop_reason"].to_list(), strict=True))
    wrong = [
        (line.kind, line.raw[:80], reasons.get(number))
        for number, line in expected.items()
        if reasons.get(number) != line.reason
    ]
    assert not wrong, (len(wrong), wrong[:5])
    assert len(kept) + len(dropped) == len(expected)
    assert set(kept["line"]) | set(reasons) == expected.keys()
    manifest = json.loads((home / "run/ingest/manifest.json").read_bytes())["totals"]
    assert (manifest["rows_in"], manifest["kept"]) == (len(expected), len(kept))
    assert manifest["dropped"] == dict(Counter(line.reason for line in expected.values() if line.reason))


def test_what_is_kept_is_what_the_file_says(built):
    home, placed = built
    said = {number: line.said for line, number, _ in placed if line.is_record and line.reason is None}
    kept, _ = halves(home)
    found = {
        number: [(message["role"], message["content"]) for message in messages]
        for number, messages in kept.select("line", "messages").iter_rows()
    }
    wrong = [(said.get(number), found.get(number)) for number in sorted(said.keys() | found.keys())]
    wrong = [pair for pair in wrong if pair[0] != pair[1]]
    assert not wrong, (len(wrong), str(wrong[:3])[:2_000])


def test_the_place_of_each_row_leads_back_to_its_line(built):
    home, placed = built
    data = (home / "lines.jsonl").read_bytes()
    starts = {number: (start, line) for line, number, start in placed}
    for half in halves(home):
        for number, offset, id_ in half.select("line", "offset", "id").iter_rows():
            start, line = starts[number]
            assert offset == start
            assert data.startswith(line.raw, offset) or number == 1
            assert id_ == f"{home / 'lines.jsonl'}:{number}"


def test_a_quarantined_line_shows_a_bounded_printable_beginning(built):
    _, dropped = halves(built[0])
    assert dropped["detail"].null_count() == 0
    assert dropped["detail"].str.len_chars().max() <= 500
    shown = dropped.filter(pl.col("drop_reason") != "line_too_long")["excerpt"]
    assert shown.null_count() == 0
    assert shown.str.len_chars().max() <= 2_000
    assert all(text.isprintable() for text in shown)


def test_all_kinds_are_in_the_file(built):
    n_of_kind = Counter(line.kind for line, _, _ in built[1])
    assert len(n_of_kind) == len(torture.KINDS) + 1
    assert min(n_of_kind.values()) > 1_000


def lawful(raw: bytes) -> list[tuple[str, str]] | None:
    """Return what a line of messages says, by Python's own decoder; None for a line that must not be kept."""
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
        text = json.dumps(value, ensure_ascii=False)
        text.encode("utf-8")
    except (ValueError, RecursionError):
        return None
    if "\\u0000" in text.replace("\\\\", ""):
        return None
    return _said(value)


def _said(value: Any) -> list[tuple[str, str]] | None:
    turns = value.get("messages") if isinstance(value, dict) else None
    return [(turn["role"], turn["content"]) for turn in turns] if turns else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _refuse(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    if abs(number := float(text)) == float("inf"):
        raise ValueError(text)
    return number


@pytest.mark.parametrize("seed", range(4))
def test_lines_changed_at_random_are_kept_only_if_they_still_say_what_is_kept(seed):
    rng = random.Random(seed)
    raws = [
        mutated(rng, line.raw.strip()) for line in torture.torture(3_000, seed) if line.kind == "messages" for _ in "12"
    ]
    raws = [raw for raw in raws if b"\n" not in raw and raw.strip(b" \t\r\n")]
    out = ingest_lines(records(*raws), Ingest())
    assert out["line"].n_unique() == len(raws)
    n_kept = 0
    for raw, messages, reason in zip(raws, out["messages"].to_list(), out["drop_reason"].to_list(), strict=True):
        if reason is not None:
            assert reason in set(DropReason)
            continue
        n_kept += 1
        said = [(message["role"], message["content"]) for message in messages]
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
        if isinstance(value, dict) and isinstance(value.get("messages"), list):
            contents = [turn.get("content") for turn in value["messages"] if isinstance(turn, dict)]
            assert [text for _, text in said] == contents[: len(said)]
            assert lawful(raw) is not None
    assert 0.05 * len(raws) < n_kept < 0.95 * len(raws)


def mutated(rng: random.Random, raw: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.randint(0, 2)):
        at = rng.randrange(len(data))
        kind = rng.randrange(5)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            data[at : at + rng.randint(1, 4)] = b""
        elif kind == 2:
            data[at:at] = rng.choice(
                (b'"', b"\\", b"\\u0000", b"\\ud800", b",", b"}", b"]", b":", b"\0", b"\xff", b" ", b"\t", b"0")
            )
        elif kind == 3:
            data[at:at] = data[at : at + rng.randint(1, 40)]
        else:
            other = rng.randrange(len(data))
            data[at], data[other] = data[other], data[at]
        if not data:
            return b"x"
    return bytes(data)


@pytest.mark.parametrize("shard_bytes", [1 << 10, 1 << 14, 1 << 30])
def test_where_a_file_is_cut_changes_nothing(tmp_path, shard_bytes):
    path = tmp_path / "lines.jsonl"
    torture.write(path, 2_000, seed=5)

    def rows(size: int) -> pl.DataFrame:
        config = Source(shard_bytes=size, max_line_bytes=torture.CAP)
        chunks = scan(str(path), config, tmp_path)
        return pl.concat([ingest_lines(read_chunk(chunk, config), Ingest()) for chunk in chunks])

    is_equal = rows(shard_bytes).equals(rows(1 << 18))
    assert is_equal
