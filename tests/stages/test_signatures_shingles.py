"""Shingles and sketches: texts share what their tokens share, and sketches are datasketch's, bit for bit."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.conform import conform
from schemas.tables import SIGNED
from stages.signatures import sign_conversations, sketch_permutations
from stages.signatures.shingle_kernel import hash_exactly, hash_shingles
from stages.signatures.sketch_kernel import sketch_rows
from stages.signatures.sort_kernel import SORT_ROOM, sort_distinct
from tests.corpus import ROOT
from tests.stages.signing import RUNS, TEXTS, configured, conversation, measured, plain_tokens, signed, units

NO_VALUE = 0xFFFFFFFF


def oracle(shingles: Sequence[int], num_perm: int, seed: int) -> list[int]:
    sketch = datasketch.MinHash(num_perm=num_perm, seed=seed, hashfunc=int, scheme="affine32")
    sketch.update_batch(shingles)
    return [int(value) for value in sketch.hashvalues]


def address(array: NDArray[Any]) -> np.uint64:
    return np.uint64(array.ctypes.data)


def plain_shingles(texts: Sequence[str], ngram: int) -> set[tuple[str, ...]]:
    tokens = [token for text in texts for token in plain_tokens(text)]
    width = min(ngram, len(tokens))
    return {tuple(tokens[i : i + width]) for i in range(len(tokens) - width + 1)} if tokens else set()


# --- shingles


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(TEXTS | RUNS, max_size=3), max_size=5), st.integers(1, 6))
def test_rows_share_exactly_the_shingles_that_their_tokens_share(rows: list[list[str]], ngram: int) -> None:
    frame = measured(*[conversation(*[("user", text) for text in row]) for row in rows])
    out = sign_conversations(frame, configured(ngram=ngram))
    hashed = [set(found[0]["shingles"]) if found else set() for found in out["units"].to_list()]
    plain = [plain_shingles(row, ngram) for row in rows]
    assert [len(values) for values in hashed] == [len(values) for values in plain]
    for i, left in enumerate(plain):
        for j, right in enumerate(plain):
            assert len(hashed[i] & hashed[j]) == len(left & right)
            sequences = [[t for text in row for t in plain_tokens(text)] for row in (rows[i], rows[j])]
            assert (out["text_hash"][i] == out["text_hash"][j]) == (sequences[0] == sequences[1])


@pytest.mark.parametrize("ngram", [1, 2, 5, 64])
def test_a_shingle_is_hashed_alike_wherever_it_stands(ngram: int) -> None:
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, 2**64, 200, np.uint64)
    together, alone, sums = np.zeros(200, np.uint32), np.zeros(200, np.uint32), np.zeros(200, np.uint64)
    n = 201 - ngram
    assert hash_shingles(address(tokens), 200, ngram, address(sums), address(together)) == n
    for i in range(n):
        assert hash_shingles(address(tokens[i:]), ngram, ngram, address(sums), address(alone)) == 1
        assert alone[0] == together[i]
    assert len(set(together[:n].tolist())) == n


def test_a_short_text_has_one_shingle_of_all_its_tokens() -> None:
    out = signed("hello there", "Hello, there!", "hello", "hello there general", "中文")
    assert out["shingles"].list.len().to_list() == [1, 1, 1, 1, 1]
    assert out["shingles"][0].to_list() == out["shingles"][1].to_list()
    assert out["shingles"].n_unique() == 4


def test_words_and_characters_make_shingles_together() -> None:
    out = signed("我用 Python 写代码", "我用python写代码", "我用 Python 写代码吧")  # six tokens, the same six, seven
    assert out["shingles"].list.len().to_list() == [2, 2, 3]
    assert out["exact_hash"][0] == out["exact_hash"][1]
    assert set(out["shingles"][0]) < set(out["shingles"][2])


def test_shingles_are_ascending_and_distinct_in_long_and_repetitive_texts() -> None:
    words = [f"w{i % 700}" for i in range(5_000)]
    out = signed(" ".join(words), "again " * 10_000, " ".join(map(str, range(3_000))))
    assert out["shingles"].list.len().to_list() == [700, 1, 2_996]
    assert all((np.diff(values.to_numpy().astype(np.int64)) > 0).all() for values in out["shingles"])


def sorted_distinct(values: Sequence[int]) -> list[int]:
    hashes, distinct = np.empty(len(values) + SORT_ROOM, np.uint32), np.zeros(len(values), np.uint32)
    hashes[: len(values)] = values
    return distinct[: sort_distinct(address(hashes), len(values), address(distinct))].tolist()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 9) | st.just(2**32 - 1), max_size=600))
def test_sorting_is_right_for_any_values(values: list[int]) -> None:
    assert sorted_distinct(values) == sorted(set(values))


@pytest.mark.parametrize("scale", [2, 1_000, 2**32])
def test_sorting_is_right_for_any_number_of_values(scale: int) -> None:
    rng = np.random.default_rng(7)
    for n in [*range(70), *(64 * i + more for i in range(1, 40) for more in (-1, 0, 1)), 5_000, 20_000, 100_001]:
        values = rng.integers(0, scale, n, np.uint64)
        assert sorted_distinct(values.tolist()) == np.unique(values).tolist()
        assert sorted_distinct(np.sort(values)[::-1].tolist()) == np.unique(values).tolist()


def test_shingle_hashes_collide_no_more_than_chance_allows() -> None:
    text = " ".join(f"{a}{b}{c}" for a in "abcdefghij" for b in range(100) for c in "klmnopqrst")
    n = 10_000
    distinct = signed(text, ngram=1)["shingles"].list.len()[0]
    assert n - distinct <= 2  # n * n / 2 / 2**32 = 0.012 collisions are expected


# --- exact hashes


def test_exact_hashes_depend_on_each_token_and_on_their_order() -> None:
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, 2**64, 40, np.uint64)
    variants = [tokens, tokens[:-1], tokens[1:], tokens[::-1].copy(), np.append(tokens, np.uint64(0))]
    for i in range(40):
        changed, swapped = tokens.copy(), tokens.copy()
        changed[i] ^= np.uint64(1 << i)
        swapped[[i, i - 1]] = swapped[[i - 1, i]]
        variants += [changed, swapped]
    hashes = [word for variant in variants for word in hash_exactly(address(variant), len(variant))]
    assert len(set(hashes)) == 2 * len(variants)


def test_hashes_are_the_same_on_every_machine_and_in_every_release() -> None:
    out = signed("The quick brown fox jumps, 先生!")
    assert out["exact_hash"][0].hex() == "31c41f14bf37c3369bd1f1b8063f74ac"
    assert out["shingles"][0].to_list() == [1015005104, 2821184108, 2828787201]
    assert out["minhash"][0].to_list()[:3] == [666656590, 390550088, 1249286719]


# --- sketches


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS | RUNS, min_size=1, max_size=4), st.sampled_from([16, 48, 128, 256]), st.integers(0, 2**32 - 1))
def test_sketches_equal_datasketch_bit_for_bit(texts: list[str], num_perm: int, seed: int) -> None:
    frame = measured(*[conversation(("user", text)) for text in texts])
    for shingles, minhash in units(frame, num_perm=num_perm, seed=seed).select("shingles", "minhash").iter_rows():
        assert minhash == oracle(shingles, num_perm, seed)


def test_sketches_of_long_texts_equal_datasketch() -> None:
    out = signed(*[" ".join(map(str, range(n))) for n in (1, 5, 20, 21, 100, 3_333)])
    for shingles, minhash in out.select("shingles", "minhash").iter_rows():
        assert minhash == oracle(shingles, 128, 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=40), max_size=4), st.sampled_from([16, 64, 112, 1024]))
def test_sketches_equal_datasketch_for_any_hashes(rows: list[list[int]], num_perm: int) -> None:
    a, b = sketch_permutations(num_perm, 1)
    starts = np.cumsum([0, *map(len, rows)])
    out = sketch_rows(np.array([value for row in rows for value in row], np.uint32), starts, a, b)
    assert out.tolist() == [oracle(values, num_perm, 1) for values in rows]


def test_nothing_has_the_empty_sketch() -> None:
    a, b = sketch_permutations(128, 1)
    assert sketch_rows(np.empty(0, np.uint32), np.zeros(3, np.int64), a, b).tolist() == [[NO_VALUE] * 128] * 2


def test_minhash_loads_into_datasketch_and_its_index_finds_planted_near_duplicates() -> None:
    texts = [" ".join(f"word{100 * k + i}" for i in range(100)) for k in range(100)]
    near = [text.rsplit(" ", 2)[0] + " other end" for text in texts]
    permutations = sketch_permutations(128, 1)
    sketches = [
        datasketch.MinHash(hashvalues=row.to_numpy(), seed=1, scheme="affine32", permutations=permutations)
        for row in signed(*texts, *near)["minhash"]
    ]
    index = datasketch.MinHashLSH(threshold=0.7, num_perm=128)
    for i in range(100):
        index.insert(i, sketches[i])
    assert [index.query(sketch) for sketch in sketches] == [[i] for i in range(100)] * 2
    assert sketches[0].jaccard(sketches[100]) == pytest.approx(94 / 98, abs=0.08)
    later = sketches[0].copy()
    later.update(b"a shingle of the user's own")  # a loaded sketch is a whole one: it can be added to
    assert later.jaccard(sketches[0]) > 0.9


def test_the_python_of_the_page_on_signatures_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(f"word{100 * k + i}" for i in range(100)) for k in range(100)]
    near = [text.rsplit(" ", 1)[0] + " other" for text in texts]
    frame = measured(*[conversation(("user", text)) for text in (*texts, *near)])
    kept = tmp_path / "runs" / "my" / "signatures" / "kept"
    kept.mkdir(parents=True)
    table = conform(sign_conversations(frame, configured(scope=["conversation", "prompt"])).to_arrow(), SIGNED)
    with pa.ipc.new_file(kept / "00000.arrow", table.schema) as writer:
        writer.write_table(table)
    page = (ROOT / "docs" / "signatures.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(block, "signatures.md", "exec"), names)  # noqa: S102 - our own document
    assert names["near"] == {f"a.jsonl:{i + 1}": [f"a.jsonl:{(i + 100) % 200 + 1}"] for i in range(200)}
