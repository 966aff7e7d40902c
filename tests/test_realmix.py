"""Real conversations through real tokenizers and templates, against transformers and tokenizers; skipped without them.

CHATLOOM_TOKENIZERS names a directory below which lie tokenizer.json files, each beside its tokenizer_config.json.
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
from pathlib import Path

import polars as pl
import pytest

from pipeline.config import load_config
from pipeline.run import build
from schemas.manifest import read_manifests
from tests.corpus import ROOT, shards_of

CORPUS = ROOT.parent / "shared" / "data" / "realmix.jsonl.gz"
HOME = os.environ.get("CHATLOOM_TOKENIZERS")
TOKENIZERS = sorted(path.parent for path in Path(HOME).rglob("tokenizer_config.json")) if HOME else []
TOKENIZERS = [
    path for path in TOKENIZERS if json.loads((path / "tokenizer_config.json").read_text()).get("chat_template")
]
N_ROWS = 1000

pytestmark = [
    pytest.mark.realmix,
    pytest.mark.skipif(not CORPUS.exists(), reason="the corpus is not beside the project"),
    pytest.mark.filterwarnings("default"),
]


@pytest.mark.parametrize("directory", TOKENIZERS, ids=lambda path: "/".join(path.parts[-3:]))
def test_texts_ids_and_labels_are_what_the_libraries_and_the_messages_say(directory: Path, tmp_path: Path):
    from tokenizers import Tokenizer
    from transformers.utils.chat_template_utils import render_jinja_template

    settings = json.loads((directory / "tokenizer_config.json").read_text())
    template = settings["chat_template"]
    tokens = {
        k: v["content"] if isinstance(v, dict) else v for k, v in settings.items() if k in ("bos_token", "eos_token")
    }
    with gzip.open(CORPUS, "rb") as packed:
        (tmp_path / "part.jsonl").write_bytes(b"".join(itertools.islice(packed, N_ROWS)))
    (tmp_path / "c.toml").write_text(
        f'run = "{tmp_path}/run"\n[source]\ninputs = ["{tmp_path}/part.jsonl"]\n[tokenize]\ntokenizer = "{directory}"\n'
    )
    build(load_config(tmp_path / "c.toml"))
    run = tmp_path / "run"
    oracle = Tokenizer.from_file(str(directory / "tokenizer.json"))
    plain = json.loads((directory / "tokenizer.json").read_text()) | {"post_processor": None}
    oracle = Tokenizer.from_str(json.dumps(plain))
    specials = [token["content"] for token in plain["added_tokens"] if token["special"]]

    rows = pl.read_ipc(run / "dedup/kept/*.arrow").select("id", "messages")
    rendered = pl.read_ipc(run / "render/kept/*.arrow").select("id", "text", "spans")
    labelled = pl.read_ipc(run / "mask/kept/*.arrow").select("id", "input_ids", "labels")
    frame = rows.join(rendered, on="id").join(labelled, on="id")
    n_dropped = sum(pl.read_ipc(path).height for path in run.glob("render/dropped/*.arrow"))
    assert frame.height + n_dropped == rows.height
    assert frame.height > 0.5 * N_ROWS
    n_turns = n_straddling = 0
    for row in frame.iter_rows(named=True):
        messages = [{"role": message["role"], "content": message["content"]} for message in row["messages"]]
        (texts, _) = render_jinja_template(conversations=[messages], chat_template=template, **tokens)
        assert row["text"] == texts[0]
        contents = "".join(message["content"] for message in messages)
        if not any(token in contents for token in specials):
            assert row["input_ids"] == oracle.encode(row["text"], add_special_tokens=False).ids
        assert oracle.decode(row["input_ids"], skip_special_tokens=False).strip() == row["text"].strip()
        # each trained run of tokens is one turn of the assistant and its stop
        expected = ["".join(row["text"][s["start"] : s["end"]] for s in spans) for spans in turns(row["spans"])]
        found = [oracle.decode(ids, skip_special_tokens=False) for ids in trained_runs(row["labels"])]
        for text, trained in zip(expected, found, strict=True):
            n_turns += 1
            if trained != text:
                # a token that begins in the header may hold the first characters of the turn: white space
                n_straddling += 1
                assert text.endswith(trained)
                assert not text.removesuffix(trained).strip()
    assert n_turns > 1000
    assert n_straddling < 0.02 * n_turns


def turns(spans: list[dict]) -> list[list[dict]]:
    own = [span for span in spans if span["role"] == "assistant"]
    return [list(group) for _, group in itertools.groupby(own, key=lambda span: span["message"])]


def trained_runs(labels: list[int]) -> list[list[int]]:
    return [
        list(group) for is_trained, group in itertools.groupby(labels, key=lambda label: label != -100) if is_trained
    ]


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
