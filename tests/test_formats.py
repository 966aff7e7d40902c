"""Real files in the shapes they are published in: what becomes of every record of them; skipped without them."""

import gzip
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stages.ingest import Ingest, ingest_lines
from tests.corpus import ROOT
from tests.stages.rows import records

DATA = ROOT.parent / "shared" / "data"
FORMATS = DATA / "formats"
REALMIX = DATA / "realmix.jsonl.gz"

TABLE: dict[str, tuple[str, int, dict[str, int]]] = {
    "alpaca_code_extra_key.json": ("alpaca", 1000, {}),
    "alpaca_en.json": ("alpaca", 494, {}),
    "alpaca_gsm8k.jsonl": ("alpaca", 1500, {}),
    "alpaca_zh.json": ("alpaca", 510, {}),
    "messages_label_kto.json": ("messages", 76, {"disliked": 68}),
    "messages_parts_sft.jsonl": ("messages", 245, {}),
    "messages_tools_reasoning.jsonl": ("messages", 26, {}),
    "native_kdconv.json": ("unlabelled", 438, {}),
    "native_moss.jsonl": ("moss", 559, {}),
    "native_smile.jsonl": ("turns", 497, {"same_role": 2, "no_answer": 1}),
    "openai_messages_tools_glaive.jsonl": ("messages", 307, {}),
    "openai_messages_tools_taskmaster.jsonl": ("messages", 1496, {"empty_message": 4}),
    "prompt_completion.jsonl": ("prompt_completion", 2000, {}),
    "prompt_completion.jsonl.gz": ("prompt_completion", 2000, {}),
    "sharegpt_fastchat.json": ("sharegpt", 348, {}),
    "sharegpt_preference.json": ("preference", 308, {}),
    "sharegpt_tools_glaive.json": ("sharegpt", 307, {}),
}
"""File to (shape, conversations kept, quarantined by reason)."""
TRIMMED = {"native_kdconv.json": 2, "native_smile.jsonl": 72}
"""Turns at the end that nothing answers."""


ROLES = {"human": "user", "client": "user", "gpt": "assistant", "counselor": "assistant", "observation": "tool"}
Heard = list[tuple[str, str | None]]


def lines_of(path: Path) -> list[bytes]:
    """Return the records of a file, those of an array as they are written there."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if path.suffix == ".json":
        return [bytes(record) for record in msgspec.json.decode(data, type=list[msgspec.Raw])]
    return data.splitlines()


@pytest.mark.skipif(not FORMATS.exists(), reason="the files are not beside the project")
@pytest.mark.parametrize("name", TABLE)
def test_every_record_of_a_published_file_is_kept_unaltered_or_quarantined(name: str):
    shape, n_kept, quarantined = TABLE[name]
    lines = lines_of(FORMATS / name)
    out = ingest_lines(records(*lines), Ingest())
    assert dict(out["shape"].drop_nulls().value_counts().iter_rows()) == {shape: n_kept}
    assert dict(out["drop_reason"].drop_nulls().value_counts().iter_rows()) == quarantined
    n_trimmed = 0
    for raw, row in zip(lines, out.iter_rows(named=True), strict=True):
        if row["drop_reason"] is None:
            n_trimmed += trimmed(row)
            check_texts(json.loads(raw), row)
            check_json(raw, row)
    assert n_trimmed == TRIMMED.get(name, 0)


@pytest.mark.realmix
@pytest.mark.skipif(not REALMIX.exists(), reason="the corpus is not beside the project")
def test_every_content_of_the_corpus_is_that_of_its_file():
    lines = lines_of(REALMIX)
    out = ingest_lines(records(*lines), Ingest())
    assert out.height == len(lines) == 58_874
    assert dict(out["drop_reason"].drop_nulls().value_counts().iter_rows()) == {
        "empty_message": 243,
        "same_role": 54,
        "no_answer": 6,
    }
    n_trimmed = 0
    for raw, row in zip(lines, out.iter_rows(named=True), strict=True):
        if row["drop_reason"] is None:
            n_trimmed += trimmed(row)
            check_texts(json.loads(raw), row)
    assert n_trimmed == 1968


def trimmed(row: dict[str, Any]) -> int:
    return sum(int(repair.removeprefix("trailing:")) for repair in row["repairs"])


def check_texts(record: Any, row: dict[str, Any]) -> None:
    """Compare who says what with another reading of the record, as plain as it can be."""
    got = [(message["role"], message["content"]) for message in row["messages"]]
    if row["shape"] == "moss":
        asked = [turn["Human"][len("<|Human|>:") : -len("<eoh>\n")].strip() for turn in record["chat"].values()]
        answers = [turn["MOSS"][len("<|MOSS|>:") : -len("<eom>\n")].strip() for turn in record["chat"].values()]
        assert got[0] == ("system", record["meta_instruction"])
        assert [content for role, content in got if role == "user"] == asked
        assert [b for (_, b), (then, _) in pairwise([*got, ("user", "")]) if then == "user"][1:] == answers
        return
    heard = HEARD[row["shape"]](record)
    assert got == heard[: len(heard) - trimmed(row)]


def turns(record: Any) -> Heard:
    listed = record if isinstance(record, list) else record.get("messages") or record.get("conversations")
    said = [(ROLES.get(turn["role"], turn["role"]), content_of(turn["content"])) for turn in listed]
    return without_empty_system(said)


def without_empty_system(said: Heard) -> Heard:
    return said[1:] if said[0][0] == "system" and not said[0][1] else said


def content_of(content: Any) -> str | None:
    if isinstance(content, list):
        texts = [part["value"] for part in content if part["type"] == "text"]
        return "".join(texts) if texts else None
    return content or None


def sharegpt(record: Any) -> Heard:
    system = [("system", record["system"])] if record.get("system") else []
    said = [
        ("assistant", None)
        if turn["from"] == "function_call"
        else (ROLES.get(turn["from"], turn["from"]), turn["value"])
        for turn in record["conversations"]
    ]
    return [*system, *without_empty_system(said)]


def alpaca(record: Any) -> Heard:
    asked = "\n".join(part for part in (record["instruction"], record.get("input")) if part)
    before = [
        (role, text)
        for pair in record.get("history", [])
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
    return [*before, ("user", asked), ("assistant", record["output"])]


HEARD: dict[str, Callable[[Any], Heard]] = {
    "alpaca": alpaca,
    "messages": turns,
    "turns": turns,
    "sharegpt": sharegpt,
    "preference": lambda record: [*sharegpt(record), ("assistant", record["chosen"]["value"])],
    "prompt_completion": lambda record: [("user", record["prompt"]), ("assistant", record["completion"])],
    "unlabelled": lambda record: [
        (("user", "assistant")[i % 2], turn["message"]) for i, turn in enumerate(record["messages"])
    ],
}


def check_json(raw: bytes, row: dict[str, Any]) -> None:
    """Find tools, calls and what was rejected in the record, byte for byte; JSON inside text as the text has it."""
    record = json.loads(raw)
    if isinstance(record, dict):
        tools = record.get("tools")
        if isinstance(tools, list) and tools:
            assert row["tools"].encode() in raw
        else:
            assert row["tools"] == (None if tools in (None, "", "[]", []) else tools)
        assert (row["rejected"] is not None) == ("rejected" in record)
        assert (row["rejected"] or "").encode() in raw
    if row["shape"] == "moss":
        return
    for message in row["messages"]:
        for call in msgspec.json.decode(message["tool_calls"] or "[]", type=list[dict[str, msgspec.Raw]]):
            arguments = bytes(msgspec.json.decode(call["function"], type=dict[str, msgspec.Raw])["arguments"]).decode()
            assert any(arguments in text for text in (raw.decode(), *texts_of(record)))


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_of(item)
