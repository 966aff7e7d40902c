"""A stretch of one input file: the unit in which everything is read."""

from typing import Literal

import msgspec

from pipeline.source.cutting import Container
from schemas.errors import UserError


class SourceError(UserError):
    """An input file cannot be read; the text names the file and says what to do."""


TableContainer = Literal["delimited", "parquet", "arrow"]
"""Text tables (CSV, TSV), and files whose columns lie apart."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of one input file: whole lines, whole elements of a JSON array, or whole records of a table."""

    path: str
    """As given by the user; part of every row id."""
    container: Container | TableContainer
    start: int
    """First byte, of the decompressed file."""
    end: int
    line: int
    """1-based number of its first line, or of its first element."""
    sha256: str
    """Of its bytes."""
    n_elements: int = 0
    """Elements of an array, or lines, blank ones too."""
    torn: str | None = None
    """Why the file ends with this chunk though it should not: it was cut off, or cannot be unpacked any further."""
    is_last: bool = False
    """An array ends with this chunk."""
    indent: str | None = None
    """What stands before records that begin a line, if they do; records are found again there after a broken one."""
    rules: str | None = None
    """What is particular to its set: see stages.ingest.rules."""
    at: str | None = None
    """Where the file lies, if not at `path`."""
    spool: str | None = None
    """For a compressed file: where its decompressed bytes lie while they are needed."""
    spool_sha256: str = ""
    """Of the bytes that lie there: those of the chunk, but for the rest of a record that is too long to be read."""
    dialect: str | None = None
    """Of a text table: how it is written and what its columns are called, as pipeline.source.dialect encodes it."""
    parts: tuple[int, int] = (0, 0)
    """Of parquet and arrow: its first row group or record batch, and the one after its last."""
    rows: tuple[int, int] = (0, 0)
    """Of parquet and arrow: its first row in its first part, and how many it has."""
    is_piece: bool = False
    """It is a piece of a large part of parquet or arrow, and `spool` an Arrow file that holds it while it is needed."""
    sample: tuple[int, int] | None = None
    """Where not all records are asked for: the seed, and what those that are draw less than (pipeline.source.sampling)."""

    @property
    def is_torn(self) -> bool:
        """Return whether the file ends with this chunk though it should not."""
        return self.torn is not None

    @property
    def n_records(self) -> int:
        """Return how many records it has, blank lines included."""
        return self.n_elements or self.rows[1]

    def digest(self) -> str:
        """Return a text that changes whenever a row that comes out of this chunk would."""
        place = f"{self.start} {self.line} {self.rows} {self.dialect or ''}"
        ending = f"{self.torn or ''} {self.is_last} {self.indent}"
        return f"{self.path} {self.container} {place} {self.sha256} {ending} {self.rules or ''} {self.sample or ''}"
