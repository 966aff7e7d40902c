"""Settings of [ingest]."""

from typing import Annotated, Literal

import msgspec

from stages.ingest.decode import MAX_DEPTH
from stages.ingest.mapping import Mapping, refuse_both
from stages.ingest.policies import Policies
from stages.ingest.shapes.names import ShapeName


class Ingest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records are read."""

    shape: ShapeName = "auto"
    """Shape of every record, or auto: each record is recognised by its own keys (docs/formats.md)."""
    mapping: Mapping | None = None
    """Where in a record its parts stand, for records of no known shape."""
    input_border: str = "\n"
    """What is put between an instruction and its input (or context, or definition), where a record keeps them apart; the
    template of Stanford Alpaca has "\\n\\n### Input:\\n" there."""
    trailing: Literal["trim", "quarantine", "keep"] = "trim"
    """Turns after the assistant's last one, which nothing answers: left out and counted, refused, or kept untrained."""
    first_assistant: Literal["keep", "trim", "quarantine"] = "keep"
    """A conversation that the assistant opens: kept as it is, its opening left out, or refused."""
    same_role: Literal["quarantine", "merge", "keep"] = "quarantine"
    """User or assistant twice running: refused, joined into one message by `merge_with`, or kept as it is."""
    merge_with: str = "\n"
    """What is put between two messages that are joined."""
    empty: Literal["quarantine", "remove"] = "quarantine"
    """A message with neither text nor tool calls: the record is refused, or the message left out."""
    disliked: Literal["quarantine", "keep"] = "quarantine"
    """A record whose `label` or `kto_tag` is false, by which KTO data marks an answer that people disliked: refused, or trained
    as any other."""
    end_texts: tuple[str, ...] = ()
    """Texts that are cut off the end of the assistant's messages, and counted, e.g. ["<|endoftext|>"] where a data set spells
    the stop token of another model: a template writes its own, and the text would be learned as text."""
    max_depth: Annotated[int, msgspec.Meta(ge=4, le=MAX_DEPTH)] = 64
    """Deepest nesting of JSON that is accepted, in a line and in JSON text inside it."""
    unknown: Literal["quarantine", "text"] = "quarantine"
    """What becomes of a record that is no conversation: "text" makes one user message of all its strings. Nothing can be
    learned from that, but it can be compared with: so the files of [clusters] against and evaluations are read."""
    score: str | None = None
    """Key of a record that holds its score, a number, e.g. "score" or "meta.quality", for [clusters] keep = "score"."""
    created: str | None = None
    """Key of a record that says when it was made, for [clusters] keep = "newest" or "oldest": ISO 8601 text, or (milli)seconds
    since 1970."""

    @property
    def policies(self) -> Policies:
        """Return what becomes of conversations that are not quite as a model is trained on."""
        return Policies(
            trailing=self.trailing,
            first_assistant=self.first_assistant,
            same_role=self.same_role,
            merge_with=self.merge_with,
            empty=self.empty,
            disliked=self.disliked,
            end_texts=self.end_texts,
        )

    def __post_init__(self) -> None:
        """Refuse a key that leads nowhere."""
        refuse_both(self.shape, self.mapping)
        if "" in self.end_texts:
            raise ValueError("end_texts has an empty text, which every message ends with; leave it out")
        for name, key in (("score", self.score), ("created", self.created)):
            if key is not None and not all(key.split(".")):
                raise ValueError(
                    f"{name} = {key!r}: expected the name of a key of the records, or names joined by dots, "
                    'e.g. "meta.quality"'
                )
