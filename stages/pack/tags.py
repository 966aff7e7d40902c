"""The tags of conversations, found again by their ids beside the packs, and what is trained under each."""

from typing import Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.fields import TAGS

MOST: Final = 64
"""Tags that are counted apart in one shard."""
_WINDOW: Final = r"#\d+$"


def tags_of(ids: pl.Series, distinct: pl.DataFrame) -> pa.ListArray:
    """Return the tags of each row in `ids`, as lists of strings; a window `<id>#<n>` has those of `<id>`.

    `distinct` has columns id and tags. Raises ValueError for an id that it lacks, unless there are no tags at all.
    """
    tags = pc.fill_null(distinct["tags"].to_arrow().cast(TAGS.type), [])
    if not len(tags.flatten()):
        return pa.ListArray.from_arrays(pa.array([0] * (len(ids) + 1), pa.int32()), pa.array([], pa.string()))
    known = distinct["id"].to_arrow().cast(pa.string())
    wanted = ids.to_arrow().cast(pa.string())
    at = pc.index_in(wanted, value_set=known)
    if at.null_count:
        at = pc.index_in(pc.replace_substring_regex(wanted, _WINDOW, ""), value_set=known)
    if at.null_count:
        lost = pc.filter(wanted, pc.is_null(at)).to_pylist()
        raise ValueError(f"pack: {len(lost)} row(s) are of no conversation that dedup kept: {', '.join(lost[:5])}")
    return tags.take(at)


def count_tags(frame: pl.DataFrame, distinct: pl.DataFrame, max_seq_len: int) -> dict[str, int]:
    """Return what is packed under each tag, as {"tagged/<split>/<measure>/<tag>": n}.

    The measures are conversations, tokens and trained (labels). A conversation counts for each of its tags. If a shard has
    more than MOST tags, those of the fewest conversations there count together, as "*".
    """
    kept = frame.filter(pl.col("n_tokens") <= max_seq_len).select("id", "split", "n_tokens", "n_supervised")
    tags = pl.Series("tag", tags_of(kept["id"], distinct))
    rows = kept.with_columns(tags).explode("tag").drop_nulls("tag")
    names = rows["tag"].value_counts().sort("count", "tag", descending=[True, False])["tag"]
    if len(names) > MOST:
        rare = pl.col("tag").is_in(names.slice(MOST).implode())
        # a conversation of several rare tags is still one
        rows = rows.with_columns(tag=pl.when(rare).then(pl.lit("*")).otherwise("tag")).unique(["id", "tag"])
    sums = rows.group_by("split", "tag").agg(
        conversations=pl.len(), tokens=pl.sum("n_tokens"), trained=pl.sum("n_supervised")
    )
    return {
        f"tagged/{split}/{measure}/{tag}": n
        for split, tag, *found in sums.sort("split", "tag").iter_rows()
        for measure, n in zip(("conversations", "tokens", "trained"), found, strict=True)
    }
