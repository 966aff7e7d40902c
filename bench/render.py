"""Time rendering against transformers' own, on the same conversations and templates, interleaved; medians.

    python -m bench.render CONVERSATIONS.jsonl TOKENIZERS [ROWS]

CONVERSATIONS holds {"conversations": [{"role", "content"}, ...]} or {"messages": ...} per line. TOKENIZERS is a folder
below which every tokenizer_config.json with a chat_template is measured; the built-in templates always are.
"""

import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
from transformers.utils.chat_template_utils import render_jinja_template

from schemas import fields as f
from schemas.assets import Template
from stages.render import Render, render_conversations
from stages.render.builtin import load, names

ROUNDS = 5


def conversations(path: Path, n_rows: int) -> list[list[dict[str, str]]]:
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in itertools.islice(lines, n_rows)]
    return [record.get("messages") or record["conversations"] for record in records]


def to_frame(chats: list[list[dict[str, str]]]) -> pl.DataFrame:
    blank = dict.fromkeys(field.name for field in f.MESSAGE)
    table = pa.table(
        {
            "id": [f"bench:{index}" for index in range(len(chats))],
            "split": ["train"] * len(chats),
            "messages": pa.array([[blank | message for message in chat] for chat in chats], pa.list_(f.MESSAGE)),
            "tools": pa.nulls(len(chats), pa.string()),
        }
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def templates(folder: Path) -> list[Template]:
    found = [
        Template(
            name=f"{name} (built in)",
            source=load(name),
            variables={"bos_token": "<s>", "eos_token": "</s>"},
            control_tokens=("</s>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<｜end▁of▁sentence｜>"),
        )
        for name in names()
    ]
    for path in sorted(folder.rglob("tokenizer_config.json")):
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config.get("chat_template"), str):
            continue
        added = json.loads(path.with_name("tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        tokens = {name: token for name, token in config.items() if name.endswith("_token") and token}
        found.append(
            Template(
                name=str(path.relative_to(folder).parts[0]),
                source=config["chat_template"],
                variables={
                    name: token if isinstance(token, str) else token["content"]
                    for name, token in tokens.items()
                    if isinstance(token, (str, dict))
                },
                control_tokens=tuple(token["content"] for token in added if token["special"]),
            )
        )
    return found


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    chats = conversations(source, int(sys.argv[3]) if len(sys.argv) > 3 else 8000)
    frame = to_frame(chats)
    print(
        f"{len(chats)} conversations, {sum(map(len, chats))} messages; microseconds of CPU per conversation, median of {ROUNDS}"
    )
    for template in templates(folder):
        out = render_conversations(frame, Render(verify=0), template=template)
        fine = [chat for chat, text in zip(chats, out["text"], strict=True) if text is not None]
        texts = out["text"].drop_nulls().to_list()
        ours, theirs = [], []
        for _ in range(ROUNDS):
            start = time.process_time()
            render_conversations(frame, Render(verify=0), template=template)
            ours.append((time.process_time() - start) / len(chats))
            start = time.process_time()
            expected, _ = render_jinja_template(fine, chat_template=template.source, **template.variables)
            theirs.append((time.process_time() - start) / max(1, len(fine)))
            assert texts == expected, template.name
        mean = statistics.median(ours) * 1e6, statistics.median(theirs) * 1e6
        print(f"{template.name:26} ours, with spans {mean[0]:7.1f}   transformers, text only {mean[1]:7.1f}")


if __name__ == "__main__":
    main()
