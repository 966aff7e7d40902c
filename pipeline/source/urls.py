"""Names of inputs that are URLs."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def is_url(name: str) -> bool:
    """Tell whether an input is a URL that pyarrow.fs may know; names of the hub (hf://) are no such."""
    match = _URL.match(name)
    return match is not None and match[1].lower() != "hf"


def without_query(name: str) -> str:
    """Return a URL without its options, any other name as it is: its end says what kind of file it is."""
    return name.partition("?")[0] if is_url(name) else name


def identity(name: str) -> tuple[str, str]:
    """Return what all names of one file have in common. Raises OSError."""
    if name.startswith("hf://"):
        return "hf", name
    if is_url(name):
        parts = urlsplit(name)
        return f"{parts.scheme}://{parts.netloc}?{parts.query}", unquote(parts.path)
    status = Path(name).stat()
    return f"{status.st_dev}", f"{status.st_ino}"
