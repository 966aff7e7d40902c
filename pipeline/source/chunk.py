"""A stretch of one input file: the unit in which everything is read."""

import msgspec

from pipeline.source.cutting import Container
from schemas.errors import UserError


class SourceError(UserError):
    """An input file cannot be read; the text names the file and says what to do."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of one input file: whole lines, or whole elements of a JSON array."""

    path: str
    """As given by the user; part of every row id."""
    container: Container
    start: int
    """First byte, of the decompressed file."""
    end: int
    line: int
    """1-based number of its first line, or of its first element."""
    sha256: str
    """Of its bytes."""
    n_elements: int = 0
    """Elements of an array; lines are not counted."""
    is_torn: bool = False
    """The array ends with this chunk, but without its closing bracket."""
    rules: str | None = None
    """What is particular to its set: see stages.ingest.rules."""
    spool: str | None = None
    """For a compressed file: where its decompressed bytes lie while they are needed."""

    def digest(self) -> str:
        """Return a text that changes whenever a row that comes out of this chunk would."""
        return f"{self.path} {self.container} {self.start} {self.line} {self.sha256} {self.is_torn} {self.rules or ''}"
