"""Trees of messages, as OpenAssistant exports them: every path from the root to a leaf is a conversation."""

from collections.abc import Iterator
from typing import Any, Final

from schemas.reasons import DropReason
from stages.ingest.decode import LineError
from stages.ingest.line import Line
from stages.ingest.messages import Message, bad_shape, refuse_media, role, text
from stages.ingest.shapes.shape import Draft, Found, Shape, all_of
from stages.ingest.turns import loss_weight, roles_of

_ROOT: Final = "prompt"
_ROW: Final = ("parent_id", "message_tree_id", "text", "role")

_ELSEWHERE: Final = ("content", "value", "reasoning_content", "reasoning", "thinking", "tool_calls", "function_call")
"""Keys under which a turn of a list would say something, and a message of a tree has nothing."""


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "text" in value and "role" in value


def _root(record: Any) -> tuple[str, Any]:
    """Return (where the tree's root is, the root); None for the root if there is no tree."""
    if not isinstance(record, dict):
        return "", None
    if _is_node(record.get(_ROOT)) and ("replies" in record[_ROOT] or "message_tree_id" in record):
        return _ROOT, record[_ROOT]
    return ("", record) if _is_node(record) and "replies" in record else ("", None)


def _is_row(record: Any) -> bool:
    return isinstance(record, dict) and all(key in record for key in _ROW) and "replies" not in record


def _is_tree(record: Any) -> bool:
    return _root(record)[1] is not None or _is_row(record)


def _read(record: Any, line: Line) -> list[Found]:
    at, root = _root(record)
    if root is None:
        if _is_row(record):
            detail = (
                "one message of a tree, whose others are records of their own, which are never joined;"
                " use the export of whole trees (*.trees.jsonl.gz)"
            )
            raise LineError(DropReason.UNKNOWN_SHAPE, detail)
        raise bad_shape("record", "a tree of messages with text, role and replies", record)
    return all_of(_paths(at, root, line), line)


def _paths(at: str, root: Any, line: Line) -> Iterator[Found]:
    pending: list[tuple[str, Any, tuple[Message, ...]]] = [(at, root, ())]  # a stack of its own: trees may be deep
    while pending:
        at, node, before = pending.pop()
        try:
            path = (*before, _message(node, at or "record", line))
            replies = node.get("replies")
            if replies is not None and not isinstance(replies, list):
                raise bad_shape(f"{at}.replies".lstrip("."), "a list of messages", replies)
        except LineError as error:
            yield error  # for this node and all that follow it
            continue
        if replies:
            pending += [(f"{at}.replies[{i}]".lstrip("."), reply, path) for i, reply in reversed([*enumerate(replies)])]
        else:
            yield Draft(list(path))


def _message(node: Any, at: str, line: Line) -> Message:
    if not isinstance(node, dict):
        raise bad_shape(at, "an object with text and role", node)
    if node.get("deleted"):
        raise LineError(DropReason.BAD_SHAPE, f"{at}: a message that is marked as deleted, and what follows it")
    refuse_media(node, at)
    if unread := [key for key in _ELSEWHERE if node.get(key)]:
        raise bad_shape(f"{at}.{unread[0]}", "nothing: of a message in a tree, the text is read", node[unread[0]])
    speaker = role(node.get("role"), f"{at}.role", roles_of(line))
    return Message(speaker, text(node.get("text"), f"{at}.text"), weight=loss_weight(node, at))


TREES: Final = Shape(
    name="message_tree",
    recognises=_is_tree,
    read=_read,
    rule="`prompt`: an object with `text`, `role` and `replies`, or the record is one; every path to a leaf is a conversation",
    example='{"message_tree_id": "t", "prompt": {"text": "Hi", "role": "prompter", "replies": [{"text": "Hello!", "role": '
    '"assistant", "replies": []}, {"text": "Hey.", "role": "assistant", "replies": []}]}}',
    used_by="OpenAssistant (oasst1, oasst2: *.trees.jsonl.gz)",
)
