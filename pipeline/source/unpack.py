"""Compressed files, unpacked once."""

import gzip
import zlib
from pathlib import Path

from pipeline.source.chunk import SourceError
from pipeline.source.cutting import BLOCK
from schemas.files import TEMPORARY, sha256_of


def unpack(path: str, spool_dir: Path) -> Path:
    """Return the unpacked copy of a gzip file, making it if need be; its name is the hash of the packed bytes."""
    name = sha256_of(Path(path))
    target = spool_dir / name
    if target.exists():
        return target
    spool_dir.mkdir(parents=True, exist_ok=True)
    partial = spool_dir / f"{TEMPORARY}{name}"
    try:
        with gzip.open(path, "rb") as source, partial.open("wb") as out:
            while block := source.read(BLOCK):
                out.write(block)
    except EOFError:
        raise SourceError(f"{path}: the gzip file ends too early; it was cut off, get it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path}: not a valid gzip file: {error}") from None
    partial.replace(target)
    return target
