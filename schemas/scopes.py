"""What parts of a conversation are compared when duplicates are sought."""

from typing import Final, Literal

Scope = Literal["conversation", "prompt", "answer", "turns"]
"""All messages but the system's; the first user message; the last assistant message; each message by itself."""

SCOPES: Final[tuple[Scope, ...]] = ("conversation", "prompt", "answer", "turns")
"""In the order in which they are tried: the first in which a row is a duplicate is the one that is named."""
