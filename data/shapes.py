"""How a record is written: the shapes of its JSON, and files that are the same bytes on every machine."""

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final

from compose import Record

JsonObject = dict[str, Any]


def as_messages(record: Record, number: int) -> JsonObject:
    """Write `messages`; every third record has an id, a source and tags as well."""
    value: JsonObject = {"messages": [{"role": role, "content": content} for role, content in record.messages]}
    if number % 3 == 0:
        source = "lesson" if len(record.messages) > 8 else "chat"
        value = {"id": f"m{number:04}", "source": source, "tags": [record.language, *record.topics]} | value
    return value


def as_conversations(record: Record, _number: int) -> JsonObject:
    """Write `conversations` of role and content."""
    return {"conversations": [{"role": role, "content": content} for role, content in record.messages]}


def as_sharegpt(record: Record, number: int) -> JsonObject:
    """Write ShareGPT's `conversations` of from and value."""
    speakers = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = [{"from": speakers.get(role, role), "value": content} for role, content in record.messages]
    return {"id": f"share_{number}", "conversations": turns}


def as_alpaca(record: Record, _number: int) -> JsonObject:
    """Write Alpaca's `instruction`, `input` and `output`."""
    question, answer = (content for _, content in record.messages)
    instruction = question.removesuffix("\n" + record.task_input) if record.task_input else question
    return {"instruction": instruction, "input": record.task_input, "output": answer}


def as_prompt_completion(record: Record, _number: int) -> JsonObject:
    """Write `prompt` and `completion`."""
    question, answer = (content for _, content in record.messages)
    return {"prompt": question, "completion": answer}


WRITERS: Final[dict[str, Callable[[Record, int], JsonObject]]] = {
    "messages": as_messages,
    "conversations": as_conversations,
    "sharegpt": as_sharegpt,
    "alpaca": as_alpaca,
    "prompt_completion": as_prompt_completion,
}


def dump(value: Any) -> bytes:
    """Write JSON on one line, with Chinese as itself."""
    return json.dumps(value, ensure_ascii=False).encode()


def gzip_stored(data: bytes) -> bytes:
    """Wrap bytes in a gzip file without compressing them (RFC 1952, stored blocks of RFC 1951).

    What a compressor writes differs between zlib, zlib-ng and their versions; stored blocks are always the same bytes.
    """
    blocks = [data[start : start + 65535] for start in range(0, len(data), 65535)] or [b""]
    parts = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for position, block in enumerate(blocks):
        is_last = position == len(blocks) - 1
        parts.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    parts.append(struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF))
    return b"".join(parts)
