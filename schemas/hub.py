"""Names on the Hugging Face hub, told from paths."""

import re
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}\w)?", re.ASCII)
"""The name of an owner or of a repository, as the hub allows it."""


def is_hub_name(text: str) -> bool:
    """Tell whether `text` could be a name on the hub, "owner/name" or "name"; a path with ./, ~ or several / is none."""
    parts = text.split("/")
    return len(parts) <= 2 and ".." not in text and "--" not in text and all(map(_NAME.fullmatch, parts))
