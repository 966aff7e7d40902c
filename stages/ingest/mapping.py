"""Records of no known shape: the config names the keys under which their parts stand."""

import msgspec


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of keys, dotted where they lead through objects: a list of turns, or texts side by side."""

    turns: str | None = None
    """Key of the list of turns."""
    role: str = "role"
    """Key, in a turn, of who speaks."""
    content: str = "content"
    """Key, in a turn, of what is said."""
    roles: dict[str, str] = {}
    """Names of speakers to the roles system, user, assistant and tool, besides those that are known anyway."""
    user: str | None = None
    """Key of the question, for records without a list of turns."""
    assistant: str | None = None
    """Key of the answer."""
    system: str | None = None
    """Key of the system message, for records of either kind."""
