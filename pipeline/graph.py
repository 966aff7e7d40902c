"""The architecture on one screen: what each stage runs, reads and promises to write."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
import pyarrow as pa

from pipeline.endings import turn_endings
from schemas import tables
from schemas.manifest import REFERENCES
from stages.clusters import Clusters, cluster_rows
from stages.clusters.report import count_duplicates
from stages.dedup import Dedup, mark_duplicates
from stages.ingest import Ingest, count_records, ingest_lines
from stages.length import Length, mark_length
from stages.mask import Mask, count_tokens, label_tokens
from stages.pack import Pack, count_packed, pack_conversations
from stages.render import Render, render_conversations, report_render
from stages.signatures import Signatures, sign_conversations
from stages.signatures.counts import count_texts
from stages.tokenize import Tokenize, report_tokens, tokenize_conversations

SOURCE: Final = "source"
"""What the first stage reads: lines of the input files, see pipeline.source."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One node of the graph: what to run, what it reads, what it promises."""

    name: str
    """Also its module, its directory, its section of the config and its test file."""
    run: Callable[..., Any]
    """run(frame, *sides, config, **assets) -> frame, pure; a row it drops has a `drop_reason`."""
    config: type[msgspec.Struct]
    reads: tuple[str, ...]
    """reads[0] drives, shard by shard; of the others the same shard is read."""
    writes: pa.Schema
    evidence: pa.Schema = field(default_factory=lambda: pa.schema([]))
    """Columns that only dropped rows have."""
    scope: Literal["shard", "corpus"] = "shard"
    """corpus: instead of frames run takes sequences of them, one a shard, each read when it is asked for, and yields one a
    shard; its keyword `spill` gives memory that lies in a file."""
    assets: tuple[str, ...] = ()
    """Outside files that enter by value, as keyword arguments."""
    references: tuple[str, ...] = ()
    """Settings that name other files or runs: each is read and brought as far as reads[0], and enters as a keyword argument,
    a sequence of frames as reads[0] has them."""
    also: tuple[str, ...] = ()
    """Sections of other stages that it needs as well, as keyword arguments."""
    neutral: tuple[str, ...] = ()
    """Settings that do not change what comes out, or only say where something is whose bytes are what counts."""
    report: Callable[..., dict[str, int]] | None = None
    """report(out, *inputs, config) -> counts of one shard for the manifest, pure; `out` holds kept and dropped rows."""
    context: Callable[[Mapping[str, Any], Mapping[str, Any]], str] | None = None
    """context(configs, assets) -> a sentence for the person whom the stage refuses, from what it cannot know itself."""
    expands: bool = False
    """Whether it may make several rows of one conversation, `<id>#1`, `<id>#2`, ...; all of them are kept or none."""
    opens: bool = False
    """Whether one record that it reads may hold several conversations: what went in is then counted by what comes out, of
    which each record must have a part."""
    partition: str | None = None
    """A column by whose values the kept rows are laid into directories."""


GRAPH: Final = (
    Stage(
        name="ingest",
        run=ingest_lines,
        config=Ingest,
        reads=(SOURCE,),
        writes=tables.CONVERSATIONS,
        evidence=tables.QUARANTINE,
        opens=True,
        report=count_records,
    ),
    Stage(
        name="length",
        run=mark_length,
        config=Length,
        reads=("ingest",),
        writes=tables.MEASURED,
        evidence=tables.EXPLAINED,
    ),
    Stage(
        name="signatures",
        run=sign_conversations,
        config=Signatures,
        reads=("length",),
        writes=tables.SIGNED,
        report=count_texts,
    ),
    Stage(
        name="clusters",
        run=cluster_rows,
        config=Clusters,
        reads=("signatures",),
        writes=tables.CLUSTERED,
        scope="corpus",
        references=REFERENCES,
        also=("dedup",),
        neutral=(*REFERENCES, "memory"),
        report=count_duplicates,
    ),
    Stage(
        name="dedup",
        run=mark_duplicates,
        config=Dedup,
        reads=("length", "clusters"),
        writes=tables.DISTINCT,
        evidence=tables.DUPLICATE,
        neutral=tuple(Dedup.__struct_fields__),  # clusters draws the splits
    ),
    Stage(
        name="render",
        run=render_conversations,
        config=Render,
        reads=("dedup",),
        writes=tables.RENDERED,
        evidence=tables.EXPLAINED,
        assets=("template",),
        neutral=("template",),
        report=report_render,
    ),
    Stage(
        name="tokenize",
        run=tokenize_conversations,
        config=Tokenize,
        reads=("render",),
        writes=tables.TOKENIZED,
        evidence=tables.WEIGHED,
        expands=True,
        assets=("vocabulary",),
        neutral=("tokenizer",),
        report=report_tokens,
    ),
    Stage(
        name="mask",
        run=label_tokens,
        config=Mask,
        reads=("tokenize",),
        writes=tables.LABELLED,
        evidence=tables.EXPLAINED,
        report=count_tokens,
        context=turn_endings,
    ),
    Stage(
        name="pack",
        run=pack_conversations,
        config=Pack,
        reads=("mask", "dedup"),  # the second for the tags
        writes=tables.PACKED,
        evidence=tables.EXPLAINED,
        report=count_packed,
        partition="split",
    ),
)


def phases(graph: tuple[Stage, ...] = GRAPH) -> list[tuple[Stage, ...]]:
    """Return the graph as runs of stages that can be fused: shard stages together, each corpus stage alone."""
    grouped: list[list[Stage]] = []
    for stage in graph:
        if grouped and stage.scope == "shard" and grouped[-1][-1].scope == "shard":
            grouped[-1].append(stage)
        else:
            grouped.append([stage])
    return [tuple(group) for group in grouped]


def by_name(name: str) -> Stage:
    """Return the stage called `name`. Raises KeyError."""
    return {stage.name: stage for stage in GRAPH}[name]


NAMES: Final[tuple[str, ...]] = tuple(stage.name for stage in GRAPH)
CONFIGS: Final[dict[str, Any]] = {stage.name: stage.config for stage in GRAPH}
