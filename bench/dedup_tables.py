"""What bench/dedup.py found, as Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.brute_force import Pairs
from stages.clusters import Clusters, cluster_rows
from stages.dedup import Dedup

THRESHOLDS = (0.7, 0.8, 0.9)

Results = Mapping[tuple[str, int], Sequence[dict[str, Any]]]
"""By name and number of threads, of each round."""


def show_decisions(results: Results, pairs: Pairs, order: Sequence[int], size: float, directory: Path) -> None:
    head = "text → decisions|s|first time|s of CPU|against ours|MB/s|more memory, MiB|removed|precision|recall"
    rows = [head.split("|")]
    ours = _ours(results, "decide")
    for (name, n_threads), found in results.items():
        if "decide" not in found[0]:
            continue
        seconds, cpu = _middle(found, "decide", "seconds"), _middle(found, "decide", "cpu")
        removed = np.load(directory / f"{name}.removed.npy")
        precision, recall = judge(removed, pairs, order)
        parts = ", ".join(
            f"{part} {_middle(found, 'decide', 'parts', part):.3f}" for part in found[0]["decide"]["parts"]
        )
        label = name + (", 2 threads" if n_threads == 2 else "") + (f" (s of CPU: {parts})" if parts else "")
        times = [f"{seconds:.3f}", f"{_middle(found, 'decide', 'first'):.3f}", f"{cpu:.3f}", _times(cpu, ours)]
        memory = _middle(found, "decide", "peak_mib")
        quality = [f"{removed.sum():,}", f"{precision:.3f}", f"{recall:.3f}"]
        rows.append([label, *times, f"{size / seconds:.0f}", f"{memory:.0f}", *quality])
    _table(rows)
    print(
        "A removed row is right (precision) if a row that this side keeps is as similar to it as asked, exactly, on our\n"
        f"shingles. Recall is 1 - missed / {pairs.removed(order).sum():,}: so many rows go when each row, from the longest\n"
        "to the shortest, is compared with every row kept before it; missed would still go of the rows that this side keeps.\n"
    )


def show_times(results: Results, part: str, title: str, n_shingles: int) -> None:
    rows = [[title, "1 thread, s", "s of CPU", "against ours", "shingles per s of CPU", "2 threads, s"]]
    ours = _ours(results, part)
    for name in dict.fromkeys(name for name, _ in results):
        if part not in results[name, 1][0]:
            continue
        seconds, cpu = _middle(results[name, 1], part, "seconds"), _middle(results[name, 1], part, "cpu")
        two = f"{_middle(results[name, 2], part, 'seconds'):.3f}" if (name, 2) in results else ""
        rows.append(
            [name, f"{seconds:.3f}", f"{cpu:.3f}", _times(cpu, ours), f"{n_shingles / cpu / 1e6:.0f} million", two]
        )
    _table(rows)


def show_clusters(shards: Sequence[pl.DataFrame], n_rounds: int) -> None:
    """Time clustering in this process, thresholds in turns; the first round, which may compile, does not count."""
    n_rows = sum(shard.height for shard in shards)
    found: dict[float, list[tuple[float, float]]] = {threshold: [] for threshold in THRESHOLDS}
    for _ in range(n_rounds + 3):
        for threshold, times in found.items():
            start, cpu = perf_counter(), process_time()
            _removed(shards, threshold)
            times.append((perf_counter() - start, process_time() - cpu))
    rows = [[f"clusters alone, ms per 100,000 rows ({n_rows:,} measured)", *(f"at {each}" for each in THRESHOLDS)]]
    for kind, label in enumerate(("by the clock", "of CPU, all threads")):
        middles = [statistics.median(each[kind] for each in times[1:]) for times in found.values()]
        rows.append([label, *(f"{middle / n_rows * 1e8:.0f}" for middle in middles)])
    _table(rows)


def show_quality(signed: pl.DataFrame, pairs: Pairs, n_sample: int) -> None:
    """Compare ours with brute force, on a sample and on all rows."""
    head = "against brute force|threshold|duplicates|removed|precision|recall|similar pairs that stayed"
    rows = [head.split("|")]
    everything = np.arange(signed.height)
    sample = np.sort(np.random.default_rng(0).choice(everything, min(n_sample, signed.height), replace=False))
    for chosen in (sample, everything):
        frame = signed[chosen]
        of_chosen = pairs.of(chosen)
        for threshold in THRESHOLDS:
            near = of_chosen.at(threshold)
            removed = _removed([frame], threshold)
            precision, recall = judge(removed, near, best_first(frame))
            n_expected, n_left = near.removed(best_first(frame)).sum(), len(near.among(~removed).left) // 2
            counts = [f"{n_expected:,}", f"{removed.sum():,}", f"{precision:.4f}", f"{recall:.4f}", f"{n_left:,}"]
            rows.append([f"{len(chosen):,} rows", f"{threshold}", *counts])
    _table(rows)


def judge(removed: NDArray[np.bool_], pairs: Pairs, order: Sequence[int]) -> tuple[float, float]:
    """Return (precision, recall): rows removed that were similar to one that stayed; rows that should go and did.

    It is not asked which of two similar rows a side keeps: missed is what would still have to go of the rows that it keeps.
    """
    is_right = removed & pairs.beside(~removed)
    n_expected = pairs.removed(order).sum()
    missed = pairs.among(~removed).removed(order).sum()
    return is_right.sum() / max(removed.sum(), 1), 1 - missed / max(n_expected, 1)


def best_first(signed: pl.DataFrame) -> list[int]:
    """Return the rows in the order in which ours visits them by default."""
    return signed.with_row_index().sort(-pl.col("n_chars"), "text_hash", "content_hash", "index")["index"].to_list()


def _removed(shards: Sequence[pl.DataFrame], threshold: float) -> NDArray[np.bool_]:
    config = Clusters(threshold=threshold, max_source_loss=1.0)
    tables = list(cluster_rows(shards, config, dedup=Dedup()))
    return pl.concat(tables)["keeper"].is_not_null().to_numpy()


def _middle(found: Sequence[dict[str, Any]], *path: str) -> float:
    """Return the median over the rounds of what lies at this path of their results."""
    values = []
    for result in found:
        value: Any = result
        for key in path:
            value = value[key]
        values.append(value)
    return statistics.median(values)


def _ours(results: Results, part: str) -> float | None:
    return _middle(results["Chatloom", 1], part, "cpu") if ("Chatloom", 1) in results else None


def _times(cpu: float, ours: float | None) -> str:
    return "" if ours is None else f"{cpu / ours:.1f} ×"


def _table(rows: Sequence[Sequence[str]]) -> None:
    head, *body = rows
    print("| " + " | ".join(head) + " |\n|---" + "|--:" * (len(head) - 1) + "|")
    for row in body:
        print("| " + " | ".join(row) + " |")
    print()
