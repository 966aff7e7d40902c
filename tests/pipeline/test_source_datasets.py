"""Datasets: which files of a directory are the split that is read, and names on the hub, against a real cache and server."""

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from pipeline.source import SUFFIXES, Source, SourceError, SourceSet, expand_sets, read_chunk, scan
from pipeline.source.datasets_dir import Choice, is_dataset
from pipeline.source.hub import dataset_of
from pipeline.source.inputs import expand
from schemas.settings import ConfigError
from stages.ingest import Ingest, ingest_lines

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
license: mit
configs:
- config_name: one
  data_files: "*.jsonl"
- config_name: two
  data_files:
  - split: train
    path: b.parquet
  - split: test
    path: ["sub/*.jsonl"]
---
# A dataset
"""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def directory(path: Path, *names: str, card: str | None = None) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("{}\n")
    if card is not None:
        (path / "README.md").write_text(card)
    return path


def split(path: Path, split: str | None = None, config: str | None = None) -> tuple[list[str], list[str]]:
    """Return (files that are read, what is left out), as seen from the directory."""
    found, ignored = expand([str(path)], choice=Choice(split, config))
    return [name.removeprefix(f"{path}/") for name in found], [name.removeprefix(f"{path}/") for name in ignored]


def said(path: Path, split: str | None = None, config: str | None = None) -> str:
    with pytest.raises((ConfigError, SourceError)) as caught:
        expand([str(path)], choice=Choice(split, config))
    return str(caught.value)


def test_a_plain_directory_is_read_whole(tmp_path):
    assert split(directory(tmp_path / "a", "a.jsonl", "train.jsonl", "notes.md")) == (
        ["a.jsonl", "train.jsonl"],
        ["notes.md"],
    )
    assert split(directory(tmp_path / "b", "test.jsonl", "dev.csv"))[0] == ["dev.csv", "test.jsonl"]
    assert split(directory(tmp_path / "c", "a.jsonl", card="# Notes\nconfigs: none\n"))[0] == ["a.jsonl"]


def test_names_that_speak_of_splits_are_followed(tmp_path):
    files = directory(tmp_path / "a", "train.jsonl", "test.jsonl", "LICENSE")
    assert split(files) == (["train.jsonl"], ["test.jsonl (split test)"])
    assert split(files, "test+train")[0] == ["test.jsonl", "train.jsonl"]
    shards = [f"data/train-0000{i}-of-00002.parquet" for i in range(2)]
    numbered = directory(tmp_path / "b", *shards, "data/gold-00000-of-00001.parquet")
    assert split(numbered) == (shards, ["data/gold-00000-of-00001.parquet (split gold)"])
    assert split(directory(tmp_path / "c", "train/b.jsonl", "test/c.jsonl"))[0] == ["train/b.jsonl"]


def test_a_card_says_which_files_are_a_config_and_a_split(tmp_path):
    path = directory(tmp_path, "a.jsonl", "b.parquet", "sub/c.jsonl", card=CARD)
    assert said(path).endswith(
        'several configs and no default; there are: one, two. Set config = "..." in its [[source.sets]]'
    )
    assert split(path, config="one") == (["a.jsonl"], [])
    assert split(path, config="two") == (["b.parquet"], ["sub/c.jsonl (split test)"])
    assert split(path, "test", "two")[0] == ["sub/c.jsonl"]
    assert "no config 'three'; there are: one, two" in said(path, config="three")
    assert "no split 'dev'; there are: train (1 file), test (1 file). Set split" in said(path, "dev", "two")
    (path / "README.md").write_text(CARD.replace("- config_name: two", "- config_name: two\n  default: true"))
    assert split(path)[0] == ["b.parquet"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "https://example.org/a.jsonl"])
def test_a_card_cannot_name_files_elsewhere(tmp_path, name):
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {name!r}\n---\n"
    text = said(directory(tmp_path, "a.jsonl", card=card))
    assert str(tmp_path) in text


@pytest.mark.parametrize("card", ["---\nconfigs: {{{\n---\n", "---\nconfigs: 3\n---\n"])
def test_a_card_that_cannot_be_followed_is_named(tmp_path, card):
    assert "README.md, cannot be followed: " in said(directory(tmp_path, "a.jsonl", card=card))


RECORDS = [
    {"messages": [{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"a {i}\n"}]}
    for i in range(25)
]


def contents(paths: list[str], tmp_path: Path) -> list[str]:
    chunks = [chunk for path in paths for chunk in scan(path, Source(), tmp_path / "spool")]
    frames = [ingest_lines(read_chunk(chunk, Source()), Ingest()) for chunk in chunks]
    return [message["content"] for frame in frames for messages in frame["messages"] for message in messages]


def test_what_save_to_disk_wrote_is_read(tmp_path):
    dataset = datasets.Dataset.from_list(RECORDS)
    dataset.save_to_disk(tmp_path / "one", num_shards=2)
    files = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    assert split(tmp_path / "one") == (files, [])
    told = [turn["content"] for record in RECORDS for turn in record["messages"]]
    assert contents([f"{tmp_path}/one/{name}" for name in files], tmp_path) == told
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "two")
    name = "data-00000-of-00001.arrow"
    assert split(tmp_path / "two") == ([f"train/{name}"], [f"test/{name} (split test)"])
    assert split(tmp_path / "two", "test")[0] == [f"test/{name}"]
    assert "no split 'dev'; there are: train (1 file), test (1 file)" in said(tmp_path / "two", "dev")
    (tmp_path / "one" / files[1]).unlink()
    assert f"{files[1]} is missing; copy the whole dataset again" in said(tmp_path / "one")
    (tmp_path / "two" / "train" / "state.json").write_text('{"_data_files": [{"filename": "../../x.arrow"}]}')
    assert "state.json does not list its files" in said(tmp_path / "two")


def test_a_set_says_which_split_and_others_keep_theirs(tmp_path):
    files = directory(tmp_path / "a", "train.jsonl", "test.jsonl")
    other = directory(tmp_path / "b", "train.jsonl", "test.jsonl")
    config = Source(inputs=(str(other),), sets=(SourceSet(inputs=(str(files),), split="test", tags=("x:y",)),))
    found, ignored, _ = expand_sets(config)
    assert list(found) == [f"{other}/train.jsonl", f"{files}/test.jsonl"]
    assert ignored == [f"{other}/test.jsonl (split test)", f"{files}/train.jsonl (split train)"]
    wrong = Source(sets=(SourceSet(inputs=(f"{files}/test.jsonl",), split="test"),))
    with pytest.raises(ConfigError, match="no dataset, and split or config of its set would choose"):
        expand_sets(wrong)


def test_the_library_is_loaded_for_datasets_alone(tmp_path):
    plain, files = directory(tmp_path / "a", "a.jsonl"), directory(tmp_path / "b", "train.jsonl", "test.jsonl")
    code = "import sys; from pipeline.source.inputs import *; from pipeline.source.datasets_dir import Choice\n"
    code += "for given in sys.argv[1:]: expand([given], choice=Choice()); print('datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(plain), str(files)], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True"], done.stderr


def test_names_of_datasets(tmp_path):
    assert dataset_of("org/name", SUFFIXES) == ("org/name", None, "")
    assert dataset_of("org/name@v1", SUFFIXES) == ("org/name", "v1", "")
    assert dataset_of("hf://datasets/org/name", SUFFIXES) == ("org/name", None, "")
    assert dataset_of("hf://datasets/org/name@refs%2Fpr%2F1/data/*.csv", SUFFIXES) == (
        "org/name",
        "refs/pr/1",
        "data/*.csv",
    )
    for path in ("name", "a/b/c", "./org/name", "org/name.jsonl", "data/*.json", "org/", "/org/name"):
        assert dataset_of(path, SUFFIXES) is None
    for url in ("hf://org/name", "hf://datasets/name", "hf://models/org/name", "hf://datasets/../name"):
        with pytest.raises(ConfigError, match="expected hf://datasets/<owner>/<name>"):
            dataset_of(url, SUFFIXES)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache of a hub that cannot be reached."""
    home = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return home


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download asks for; each name of a repository stands for one of its answers."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "/org/gated/" in path:
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif "/org/absent/" in path:
            self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/datasets/") and path.endswith("/revision/v9"):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/datasets/") and "/revision/" in path:
            self.answer(200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": []}).encode(), {})
        elif path.startswith("/api/datasets/") and "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
                for name, data in self.files.items()
            ]
            self.answer(200, json.dumps(tree).encode(), {})
        elif path.startswith("/api/"):
            self.answer(404, b"", {})
        else:
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            self.asked.append(name)
            data = self.files[name]
            self.answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT})  # noqa: S324

    def answer(self, code: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()
    files = {
        "README.md": b"# Tiny\n",
        "data/train-00000-of-00001.jsonl": lines,
        "data/test-00000-of-00001.jsonl": b"{}\n",
        "images/cat.png": b"no text",
    }
    handler = type("Handler", (Hub,), {"files": files, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    home = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", home)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", home + "/{repo_id}/resolve/{revision}/{filename}")
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_of_a_dataset_on_the_hub_the_files_of_a_split_are_downloaded(hub, cache, tmp_path, monkeypatch):
    name = f"hf://datasets/org/tiny@{COMMIT}/data/train-00000-of-00001.jsonl"
    found = expand(["org/tiny"], choice=Choice())
    assert found == ([name], [f"hf://datasets/org/tiny@{COMMIT}/data/test-00000-of-00001.jsonl (split test)"])
    assert set(hub.asked) == {"README.md", "data/train-00000-of-00001.jsonl"}
    told = [turn["content"] for record in RECORDS for turn in record["messages"]]
    assert contents(found[0], tmp_path) == told
    (chunk,) = scan(name, Source(), tmp_path)
    assert ingest_lines(read_chunk(chunk, Source()), Ingest())["id"][0] == f"{name}:1"
    hub.asked.clear()
    assert expand(["hf://datasets/org/tiny"], choice=Choice()) == found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert expand(["org/tiny"], choice=Choice()) == found
    assert hub.asked == []
    with pytest.raises(SourceError, match=r"its cache .* does not have all that is asked for of that dataset"):
        expand(["org/tiny"], choice=Choice("test"))


def test_files_of_a_dataset_are_named_by_path_or_pattern(hub, cache):
    path = "data/test-00000-of-00001.jsonl"
    for given in (path, "data/test*", "data"):
        found, _ = expand([f"hf://datasets/org/tiny@main/{given}"], choice=Choice())
        assert f"hf://datasets/org/tiny@{COMMIT}/{path}" in found
    assert len(found) == 2
    with pytest.raises(ConfigError, match=r"no file that is read \(.*\) lies there in the dataset"):
        expand(["hf://datasets/org/tiny/images"], choice=Choice())


def test_what_the_hub_refuses_is_said_with_its_remedy(hub, cache):
    assert "this dataset is gated; accept its conditions at http://127.0.0.1" in said(Path("org/gated"))
    assert "no such file or directory here, and no such dataset on http://127.0.0.1" in said(Path("org/absent"))
    assert "that dataset has no revision 'v9'" in said(Path("org/tiny@v9"))


def test_offline_and_not_in_the_cache_names_cache_and_command(cache):
    text = said(Path("org/absent"))
    assert f"its cache ({cache}) does not have all" in text
    assert "Run `hf download org/absent --repo-type dataset`" in text


def test_a_directory_here_goes_before_a_name_on_the_hub(cache, tmp_path):
    directory(tmp_path / "org" / "name", "a.jsonl")
    assert expand(["org/name"], choice=Choice())[0] == ["org/name/a.jsonl"]
    assert not is_dataset(Path("org/name"), SUFFIXES)
