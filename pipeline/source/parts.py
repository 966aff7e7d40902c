"""What a file of columns consists of."""

from typing import NamedTuple


class Part(NamedTuple):
    """A row group of a Parquet file, or a record batch of an Arrow file."""

    start: int
    end: int
    """Its bytes in the file."""
    n_rows: int
    size: int
    """Its bytes in memory, as far as the file tells."""
    before: str = ""
    """A hash of what stands before it and says what is in it: the dictionaries of an Arrow file."""
