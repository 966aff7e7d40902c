"""Input files as bounded chunks of records: nothing is read whole, and a chunk is known by the bytes it holds."""

from pipeline.source.chunk import Chunk, SourceError
from pipeline.source.inputs import SUFFIXES, TEXT_SUFFIXES, expand, expand_sets
from pipeline.source.opening import COMPRESSED
from pipeline.source.reading import read_chunk
from pipeline.source.sampling import choose
from pipeline.source.scan import scan
from pipeline.source.settings import Source, SourceSet
from pipeline.source.urls import identity, without_query

__all__ = [
    "COMPRESSED",
    "SUFFIXES",
    "TEXT_SUFFIXES",
    "Chunk",
    "Source",
    "SourceError",
    "SourceSet",
    "choose",
    "expand",
    "expand_sets",
    "identity",
    "read_chunk",
    "scan",
    "without_query",
]
