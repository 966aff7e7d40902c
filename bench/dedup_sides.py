"""Those who are compared in bench/dedup.py, ours and peers, each as one would use it.

A side may decide (texts to the rows that go), sign (texts to sketches of 128 values) and sketch (hashes of shingles to
sketches). Peers get the same text and cut it into word 5-grams in Python, which is how they are used; Han and kana are
cut character by character, as ours are. Libraries are imported by the functions that use them: none must be there.
"""

import re
import struct
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

THRESHOLD = 0.8
NUM_PERM = 128
TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


@dataclass
class Work:
    """What a side is given, and what it reports beside its result."""

    shards: Sequence[pl.DataFrame]
    """Of schemas.tables.MEASURED, for ours."""
    texts: Sequence[str]
    """What the messages but the system's say."""
    shingles: NDArray[np.uint32]
    starts: NDArray[np.int64]
    """Text i has the distinct shingles[starts[i]:starts[i + 1]]."""
    n_threads: int
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds of CPU that parts of the decision took."""

    def __post_init__(self) -> None:
        self._wide = (self.shingles.astype(np.uint64), self.starts.astype(np.uint64))

    def first(self, n: int) -> "Work":
        """Return the first n rows."""
        end = self.starts[n]
        return Work([self.shards[0][:n]], self.texts[:n], self.shingles[:end], self.starts[: n + 1], self.n_threads)

    @contextmanager
    def clocked(self, part: str) -> Iterator[None]:
        start = process_time()
        yield
        self.parts[part] = process_time() - start

    def wide(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return shingles and starts as the 64-bit numbers that other sketchers ask for."""
        return self._wide

    def halves(self) -> list[slice]:
        """Return the rows in as many parts as there are threads."""
        cuts = np.linspace(0, len(self.texts), self.n_threads + 1).astype(int).tolist()
        return [slice(first, end) for first, end in pairwise(cuts)]


Removed = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One who is compared."""

    package: str
    """Distribution whose version is shown, and without which the side is left out."""
    decide: Callable[[Work], Removed] | None = None
    sign: Callable[[Work], object] | None = None
    sketch: Callable[[Work], object] | None = None
    threads: tuple[int, ...] = (1,)
    """Numbers of threads with which it signs and sketches; decisions of peers are those of one."""


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(text.lower())


def _shingled(texts: Sequence[str]) -> Iterator[list[str]]:
    for text in texts:
        tokens = _tokens(text)
        if len(tokens) < 5:
            yield [" ".join(tokens)] if tokens else []
        else:
            yield [*map(" ".join, zip(tokens, tokens[1:], tokens[2:], tokens[3:], tokens[4:], strict=False))]


def _in_threads(run: Callable[[Any], Any], parts: Sequence[Any], n_threads: int) -> list[Any]:
    if n_threads == 1:
        return [run(part) for part in parts]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(run, parts))


# --- ours


def _chatloom_sign(work: Work) -> list[pl.DataFrame]:
    from stages.signatures import Signatures, sign_conversations

    return _in_threads(lambda shard: sign_conversations(shard, Signatures()), work.shards, work.n_threads)


def _chatloom_decide(work: Work) -> Removed:
    from stages.clusters import Clusters, cluster_rows
    from stages.dedup import Dedup, mark_duplicates

    with work.clocked("signatures"):
        signed = _chatloom_sign(work)
    with work.clocked("clusters"):
        config = Clusters(threshold=THRESHOLD, max_source_loss=1.0)
        clusters = list(cluster_rows(signed, config, dedup=Dedup()))
    with work.clocked("dedup"):
        marked = [mark_duplicates(shard, table, Dedup()) for shard, table in zip(work.shards, clusters, strict=True)]
    return pl.concat([each["drop_reason"].is_not_null() for each in marked]).to_numpy()


def _chatloom_sketch(work: Work) -> list[NDArray[np.uint32]]:
    from stages.signatures import sketch_permutations
    from stages.signatures.sketch_kernel import sketch_rows

    a, b = sketch_permutations(NUM_PERM, 1)

    def sketch(rows: slice) -> NDArray[np.uint32]:
        return sketch_rows(work.shingles, work.starts[rows.start : rows.stop + 1], a, b)

    return _in_threads(sketch, work.halves(), work.n_threads)


# --- datasketch


def _datasketch_sign(work: Work) -> list[Any]:
    from datasketch import MinHash
    from xxhash import xxh32_intdigest

    rows = ([shingle.encode() for shingle in row] for row in _shingled(work.texts))
    return MinHash.bulk(rows, num_perm=NUM_PERM, hashfunc=xxh32_intdigest, scheme="affine32")


def _datasketch_decide(work: Work) -> Removed:
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=NUM_PERM)
    removed = np.zeros(len(work.texts), np.bool_)
    with work.clocked("signatures"):
        sketches = _datasketch_sign(work)
    for i, sketch in enumerate(sketches):
        if sketch.is_empty():
            continue
        removed[i] = bool(index.query(sketch))
        if not removed[i]:
            index.insert(i, sketch)
    return removed


def _datasketch_sketch(work: Work) -> list[Any]:
    from datasketch import MinHash

    rows = (work.shingles[first:end] for first, end in pairwise(work.starts))
    return MinHash.bulk(rows, num_perm=NUM_PERM, hashfunc=_itself, scheme="affine32")


def _itself(value: int) -> int:
    return value


# --- rensa


def _rensa_decide(work: Work) -> Removed:
    from rensa import RMinHashDeduplicator

    index = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=NUM_PERM, use_lsh=True)
    seen: list[int] = []

    def pairs() -> Iterator[tuple[str, list[str]]]:
        for i, row in enumerate(_shingled(work.texts)):
            if row:
                seen.append(i)
                yield str(i), row

    kept = np.array(index.add_pairs(pairs()), np.bool_)
    removed = np.zeros(len(work.texts), np.bool_)
    removed[np.array(seen)[~kept]] = True
    return removed


def _rensa_sign(work: Work) -> object:
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_token_sets(_shingled(work.texts), NUM_PERM, 1)


def _rensa_sketch(work: Work) -> object:
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_flat_token_hashes(*work.wide(), NUM_PERM, 1)


def _rensa_rho_sketch(work: Work) -> object:
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_flat_token_hashes_rho(*work.wide(), NUM_PERM, 1)


# --- FastSketchLSH


def _fastsketch_sign(work: Work) -> NDArray[np.uint64]:
    from FastSketchLSH import FastSimilaritySketch

    matrix: NDArray[np.uint64] = FastSimilaritySketch(size=NUM_PERM, seed=1).batch(
        [*_shingled(work.texts)], num_threads=work.n_threads
    )
    return matrix


def _fastsketch_decide(work: Work) -> Removed:
    """Keep the first of what its index proposes and its sketches say to be similar; its own flags mark all copies."""
    from FastSketchLSH import LSH

    with work.clocked("signatures"):
        matrix = _fastsketch_sign(work)
    index = LSH(num_perm=NUM_PERM, num_bands=16, num_threads=work.n_threads)
    index.insert(matrix)
    candidates, bounds = index.query(matrix, format="csr")
    removed = np.zeros(len(matrix), np.bool_)
    for i in range(len(matrix)):
        others = np.asarray(candidates[bounds[i] : bounds[i + 1]], np.int64)
        others = others[others < i]
        others = others[~removed[others]]
        removed[i] = len(others) > 0 and bool(((matrix[others] == matrix[i]).mean(axis=1) >= THRESHOLD).any())
    return removed & (np.diff(work.starts) > 0)


def _fastsketch_sketch(work: Work) -> object:
    from FastSketchLSH import FastSimilaritySketch

    sketcher = FastSimilaritySketch(size=NUM_PERM, seed=1)
    return sketcher.batch_csr(*work.wide(), prehashed=True, num_threads=work.n_threads)


# --- text-dedup


def _text_dedup_decide(work: Work) -> Removed:
    """Do what its command does, with its functions, without the files between its steps."""
    from text_dedup.minhash import SIGNATURE_COLUMN, embed_func
    from text_dedup.utils import UnionFind, optimal_param, xxh3_32hash

    random = np.random.RandomState(42)
    prime, largest = np.uint64((1 << 61) - 1), np.uint32((1 << 32) - 1)
    permutations = (
        random.randint(1, prime, size=NUM_PERM, dtype=np.uint64),
        random.randint(0, prime, size=NUM_PERM, dtype=np.uint64),
    )
    n_bands, n_values = optimal_param(THRESHOLD, NUM_PERM, false_positive_weight=0.5, false_negative_weight=0.5)
    ranges = [(i * n_values, (i + 1) * n_values) for i in range(n_bands)]
    tables: list[dict[bytes, set[int]]] = [defaultdict(set) for _ in range(n_bands)]
    is_said = np.zeros(len(work.texts), np.bool_)
    for i, text in enumerate(work.texts):
        tokens = _tokens(text)
        if not tokens:
            continue
        is_said[i] = True
        signature = embed_func(
            " ".join(tokens),
            i,
            num_perm=NUM_PERM,
            ngram_size=5,
            min_length=1,
            hashranges=ranges,
            permutations=permutations,
            hash_func=xxh3_32hash,
            dtype=np.uint64,
            max_hash=largest,
            modulo_prime=prime,
        )[SIGNATURE_COLUMN]
        for table, key in zip(tables, signature, strict=True):
            table[key].add(i)
    sets = UnionFind()
    for table in tables:
        for rows in table.values():
            first = min(rows)
            for row in rows if len(rows) > 1 else ():
                sets.union(row, first)
    return is_said & np.array([sets.find(i) != i for i in range(len(work.texts))], np.bool_)


# --- datatrove


def _datatrove_decide(work: Work) -> Removed:
    """Run its three steps, in memory where there is a file system for that; words are those of the others, not spaCy's."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from loguru import logger

    class Words:
        def word_tokenize(self, text: str) -> list[str]:
            return _tokens(text)

    logger.remove()
    shared = Path("/dev/shm")  # noqa: S108  # a file system in memory
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
        # a language without a tokenizer of its own, so that no other library is asked for
        sign = MinhashDedupSignature(f"{folder}/signatures", config, language="ace_Arab")
        sign.word_tokenizer = Words()
        with work.clocked("signatures"):
            sign.run(Document(text=text, id=str(i)) for i, text in enumerate(work.texts))
        for bucket in range(config.num_buckets):
            step = MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
            step.run(None, bucket, config.num_buckets)
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/removed", config=config).run(None, 0, 1)
        removed = np.zeros(len(work.texts), np.bool_)
        file = Path(folder) / "removed" / "000000.remove"
        if file.exists():
            removed[[row for (row,) in struct.iter_unpack("<I", file.read_bytes())]] = True
    return removed


SIDES = {
    "Chatloom": Side(
        package="chatloom", decide=_chatloom_decide, sign=_chatloom_sign, sketch=_chatloom_sketch, threads=(1, 2)
    ),
    "rensa": Side(package="rensa", decide=_rensa_decide, sign=_rensa_sign, sketch=_rensa_sketch, threads=(1, 2)),
    "rensa (rho: samples positions)": Side(package="rensa", sketch=_rensa_rho_sketch, threads=(1, 2)),
    "FastSketchLSH": Side(
        package="FastSketchLSH",
        decide=_fastsketch_decide,
        sign=_fastsketch_sign,
        sketch=_fastsketch_sketch,
        threads=(1, 2),
    ),
    "datasketch": Side(
        package="datasketch", decide=_datasketch_decide, sign=_datasketch_sign, sketch=_datasketch_sketch
    ),
    "text-dedup": Side(package="text-dedup", decide=_text_dedup_decide),
    "datatrove": Side(package="datatrove", decide=_datatrove_decide),
}
