"""Files cut into chunks."""

from pathlib import Path

from pipeline.source.chunk import Chunk, SourceError
from pipeline.source.cutting import container_of, cut_array, cut_lines
from pipeline.source.inputs import TEXT_SUFFIXES
from pipeline.source.settings import Source
from pipeline.source.unpack import unpack


def scan(path: str, config: Source, spool_dir: Path, rules: str | None = None) -> list[Chunk]:
    """Return the chunks of the file at `path`, in order; a compressed one is unpacked into `spool_dir` on the way.

    Chunks of lines end at the first line end at or after every `shard_bytes`, so appending to a file leaves all but its
    last chunk as they were. Raises SourceError when the file cannot be read or unpacked.
    """
    try:
        readable = unpack(path, spool_dir) if path.endswith(".gz") else Path(path)
        with readable.open("rb") as file:
            is_text = path.endswith(TEXT_SUFFIXES)
            container = "lines" if is_text else container_of(file, path.removesuffix(".gz"), config.max_line_bytes)
            cuts = list((cut_array if container == "array" else cut_lines)(file, config.shard_bytes))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from None
    spool = None if readable == Path(path) else str(readable)
    return [
        Chunk(
            path=path,
            container=container,
            start=cut.start,
            end=cut.end,
            line=cut.line,
            sha256=cut.sha256,
            n_elements=cut.n_elements,
            is_torn=cut.is_torn,
            rules=rules,
            spool=spool,
        )
        for cut in cuts
    ]
