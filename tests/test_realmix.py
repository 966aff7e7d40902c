"""Real conversations through real tokenizers and templates, against transformers and tokenizers; skipped without them.

CHATLOOM_TOKENIZERS names a directory below which lie tokenizer.json files, each beside its tokenizer_config.json; those
without a chat template take a built-in one.
"""

import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.assets import load_assets
from pipeline.config import load_config
from pipeline.run import build
from schemas.manifest import read_manifests
from stages.render import Render, probe
from stages.render.inputs import Message
from stages.render.inputs import build as build_messages
from tests.corpus import ROOT, shards_of

CORPUS = ROOT.parent / "shared" / "data" / "realmix.jsonl.gz"
WITH_TOOLS = (
    "openai_messages_tools_glaive.jsonl",
    "openai_messages_tools_taskmaster.jsonl",
    "messages_tools_reasoning.jsonl",
    "sharegpt_tools_glaive.json",
)
HOME = os.environ.get("CHATLOOM_TOKENIZERS")
TOKENIZERS = sorted(path.parent for path in Path(HOME).rglob("tokenizer.json")) if HOME else []
BUILT_IN = {"llama2": "llama-2", "gpt2": "chatml"}
"""Templates for tokenizers that have none, by the name of a folder above them."""
N_ROWS = 2000

pytestmark = [
    pytest.mark.realmix,
    pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not beside the project"),
    pytest.mark.filterwarnings("default"),
]


@pytest.mark.parametrize("directory", TOKENIZERS, ids=lambda path: "/".join(path.parts[-3:]))
def test_texts_ids_and_labels_are_what_the_libraries_and_the_messages_say(directory: Path, tmp_path: Path):
    from tokenizers import Tokenizer
    from transformers.utils.chat_template_utils import render_jinja_template

    template = next((BUILT_IN[part] for part in directory.parts if part in BUILT_IN), "tokenizer")
    with gzip.open(CORPUS, "rb") as packed:
        (tmp_path / "part.jsonl").write_bytes(b"".join(itertools.islice(packed, N_ROWS)))
    formats = CORPUS.parent / "formats"
    inputs = [str(tmp_path / "part.jsonl"), *(str(formats / name) for name in WITH_TOOLS if (formats / name).exists())]
    (tmp_path / "c.toml").write_text(
        f'run = "{tmp_path}/run"\n[source]\ninputs = {json.dumps(inputs)}\n[tokenize]\ntokenizer = "{directory}"\n'
        f'[render]\ntemplate = "{template}"\n[mask]\nwithout_stop = "mask"\n[pack]\nmax_seq_len = 65536\n'
        "[clusters]\nmax_source_loss = 1\n"  # some of the files hold the same conversations in two shapes
    )
    config = load_config(tmp_path / "c.toml")
    build(config)
    run = tmp_path / "run"
    assets = load_assets(config)
    settings = config.sections["render"]
    assert isinstance(settings, Render)
    shape = probe(assets.template, settings).shape
    if template == "tokenizer":
        own = json.loads((directory / "tokenizer_config.json").read_text())["chat_template"]
        assert assets.template.source == own
    plain = json.loads((run / "tokenizer/tokenizer.json").read_text()) | {"post_processor": None}
    oracle = Tokenizer.from_str(json.dumps(plain))
    is_prepending = "Prepend" in json.dumps(plain["normalizer"])
    controls = sorted({*assets.template.control_tokens, *assets.template.plain_control_tokens})

    def by_library(row: dict[str, Any]) -> str:
        messages = [Message(*(message[name] for name in Message._fields)) for message in row["messages"]]
        texts, _ = render_jinja_template(
            conversations=[build_messages(messages, shape, tracing=False)],
            tools=None if row["tools"] is None else json.loads(row["tools"]),
            chat_template=assets.template.source,
            **assets.template.variables,
        )
        return str(texts[0])

    rows = read(run, "dedup/kept").select("id", "messages", "tools")
    for row in rows.join(read(run, "render/dropped"), on="id").iter_rows(named=True):
        with pytest.raises(Exception):  # noqa: B017, PT011  # whatever transformers raises
            by_library(row)
    frame = (
        rows.join(read(run, "render/kept").select("id", "text", "spans"), on="id")
        .join(read(run, "tokenize/kept").select("id", token_spans="spans"), on="id")
        .join(read(run, "mask/kept").select("id", "input_ids", "labels"), on="id")
    )
    n_lost = sum(read(run, f"{stage}/dropped").height for stage in ("render", "tokenize", "mask"))
    assert frame.height + n_lost == rows.height
    assert frame.height > 0.25 * rows.height
    counts = dict.fromkeys(("conversations", "with_tools", "turns", "exact_turns", "without_stop", "plain_ids"), 0)
    for row in frame.iter_rows(named=True):
        counts["conversations"] += 1
        counts["with_tools"] += row["tools"] is not None
        assert row["text"] == by_library(row)
        data = json.dumps([row["messages"], row["tools"]], ensure_ascii=False)
        if not any(token in data for token in controls):
            counts["plain_ids"] += 1
            assert row["input_ids"] == oracle.encode(row["text"], add_special_tokens=False).ids
        decoded = oracle.decode(row["input_ids"], skip_special_tokens=False)
        assert same(decoded.strip(), row["text"].strip(), spaces=not is_prepending)
        n_trained = 0
        for text, has_stop, start, end in turns(row):
            trained = [label for label in row["labels"][start:end] if label != -100]
            n_trained += len(trained)
            if not has_stop:
                counts["without_stop"] += 1
                assert not trained
                continue
            counts["turns"] += 1
            found = oracle.decode(trained, skip_special_tokens=False)
            if same(found, text, spaces=not is_prepending):
                counts["exact_turns"] += 1
            else:
                # a token that begins in the prompt may hold the first characters of the turn: white space
                assert same(text[-len(found) :], found)
                assert not text[: -len(found)].strip()
        assert n_trained == sum(label != -100 for label in row["labels"]), "nothing else is trained"
    print(directory, {"dropped": n_lost} | counts)  # noqa: T201  # the numbers, shown with -s
    assert counts["turns"] > 1000
    assert counts["exact_turns"] > 0.98 * counts["turns"]
    assert counts["plain_ids"] > 0.9 * counts["conversations"]


def read(run: Path, table: str) -> pl.DataFrame:
    shards = sorted((run / table).glob("*.arrow"))
    if not shards:
        return pl.DataFrame(schema={"id": pl.String})
    return pl.concat([pl.read_ipc(shard) for shard in shards])


def same(left: str, right: str, *, spaces: bool = True) -> bool:
    """Return whether two texts are equal once composed, which is what a tokenizer with an NFC normaliser does.

    Without `spaces` for decoders that put one where the text has none, behind a control token, and take one at the start.
    """
    if not spaces:
        left, right = "".join(left.split()), "".join(right.split())
    return left == right or unicodedata.normalize("NFC", left) == unicodedata.normalize("NFC", right)


def turns(row: dict[str, Any]) -> list[tuple[str, bool, int, int]]:
    """Return (text, whether it ends on a stop, first token, one past the last) of each turn of the assistant."""
    pairs = [
        (characters, tokens)
        for characters, tokens in zip(row["spans"], row["token_spans"], strict=True)
        if characters["role"] == "assistant" and characters["class"] != "generation_prompt"
    ]
    out = []
    for _, group in itertools.groupby(pairs, key=lambda pair: pair[0]["message"]):
        own = list(group)
        text = "".join(row["text"][span["start"] : span["end"]] for span, _ in own)
        out.append((text, any(span["class"] == "stop" for span, _ in own), own[0][1]["start"], own[-1][1]["end"]))
    return out


@pytest.mark.slow
def test_five_kills_of_a_real_build_leave_no_trace(tmp_path: Path):
    (tmp_path / "c.toml").write_text(
        f'[source]\ninputs = ["{CORPUS}"]\n[tokenize]\ntokenizer = "{ROOT / "data" / "tokenizer"}"\n'
    )
    straight, broken = tmp_path / "straight", tmp_path / "broken"

    def start(run: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipeline.cli", "data", str(tmp_path / "c.toml"), "--run", str(run)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)

    began = time.monotonic()
    assert start(straight).wait() == 0
    duration = time.monotonic() - began
    rng = random.Random(11)
    n_files = [0]
    for _ in range(5):
        process = start(broken)
        time.sleep(rng.uniform(0.3, 0.6) * duration)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        n_files.append(len(list(broken.rglob("*.arrow"))))
    assert n_files[-1] > 0
    assert start(broken).wait() == 0
    funnel = {name: manifest.totals for name, manifest in read_manifests(broken).items()}
    assert funnel["ingest"].rows_in == 58_874
    assert all(t.rows_in == t.kept + sum(t.dropped.values()) for t in funnel.values())
    assert shards_of(broken) == shards_of(straight)
    assert not list(broken.rglob(".tmp-*"))
