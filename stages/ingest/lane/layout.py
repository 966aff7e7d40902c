"""What the kernels are given and what they fill: numbers and addresses. Whoever holds one keeps the arrays that lie there."""

from typing import NamedTuple


class Grammar(NamedTuple):
    """What the lane knows: addresses of tables."""

    letters: int
    """See stages.ingest.lane.text_kernel.alphabet."""
    keys: int
    """Names of the keys of a record: a slot's number, or STOP."""
    contents: int
    """What may stand in each slot: SCALAR, TURNS or PAIRS."""
    turn_keys: int
    roles: int


class Found(NamedTuple):
    """What was found in a line: addresses of numbers."""

    kinds: int
    """Of each slot, what its value is."""
    starts: int
    sizes: int
    roles: int
    """Of each turn: its role, and where its text stands."""
    turn_kinds: int
    turn_starts: int
    turn_sizes: int
    others: int
    """Where the keys stand that nothing reads, and how long they are."""
    other_sizes: int
    counts: int
    """How many turns there are, in which form, how many other keys."""


class Plans(NamedTuple):
    """What records of each shape have, and what is made of them: addresses of slots, NO_SLOT for none, and how many there are."""

    n_plans: int
    required: int
    """Slots that a record of this shape has, as bits."""
    allowed: int
    """All that it may have."""
    forms: int
    """How its turns say who speaks: see stages.ingest.lane.walk_kernel."""
    n_systems: int
    systems: int
    """Slots that hold the first message, for all shapes."""
    parts: int
    """Shape (plans, MAX_PARTS): the question, the first of them what must be there."""
    answers: int
    tags: int
    """Shape (plans, MAX_PARTS): texts that become tags."""
    n_ids: int
    ids: int
    """Slots of the record's own id, in the order in which they are looked at; the same for all shapes."""
    written: int
    """Slots whose texts are written out, as bits."""
    n_asked: int
    asked: int
    """Slots whose text is handed on as it is written."""
    labels: int
    """What stands before each slot's tag: from label_ends[slot] to label_ends[slot + 1]."""
    label_ends: int
    border_size: int
    border: int
    """What stands between the parts of a question."""
    role_names: int
    role_ends: int
    trims_end: bool
    """Whether turns after the assistant's last one are left out and counted; else such records are left."""
    keeps_opening: bool
    """Whether the assistant may speak first; else such records are left."""


class Lines(NamedTuple):
    """The lines of a shard, all of one file: addresses, and how many there are."""

    n_lines: int
    views: int
    """Arrow's views of them."""
    buffers: int
    """Where the buffers that views point into begin, and end."""
    ends: int
    is_left: int
    """Which of them the lane must not take."""
    is_checked: bool
    """Whether all of them are known to be UTF-8."""
    numbers: int
    prefix_size: int
    prefix: int
    """The beginning of every id."""


class Columns(NamedTuple):
    """What was taken, as Arrow lays it out: addresses; ends of texts and lists begin with 0."""

    rows: int
    """Which lines they are."""
    plans: int
    ids: int
    id_ends: int
    record_ids: int
    record_id_ends: int
    has_record_id: int
    tags: int
    tag_ends: int
    row_tags: int
    """Where each row's tags end."""
    trimmed: int
    """How many turns at the end of each row were left out."""
    asked: int
    """Shape (rows, asked slots, 2): address and size of their text, -1 for none."""
    roles: int
    role_ends: int
    contents: int
    content_ends: int
    row_messages: int
