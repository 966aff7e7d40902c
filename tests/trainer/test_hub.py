"""Names on the hub, against a real cache on disk and a real server on this machine."""

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from schemas.hub import is_hub_name
from schemas.models import Model
from trainer.errors import ModelError
from trainer.model.architecture import hugging_face_config, new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.model.hub import resolve, resolve_together
from trainer.model.layout import to_hugging_face
from trainer.model.weights import load_pretrained
from trainer.world import World

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    model = Decoder(new_architecture(Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=1), vocab_size=20))
    initialise(model, seed=0)
    weights = to_hugging_face({name: p.detach() for name, p in model.named_parameters()}, model.architecture)
    config = json.dumps(hugging_face_config(model.architecture, dtype="float32")).encode()
    return {"config.json": config, "model.safetensors": save(weights)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache of a hub that cannot be reached."""
    home = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return home


def put(cache: Path, name: str, files: dict[str, bytes], *, ref: str = "main") -> Path:
    """Lay `files` into the cache as the hub's own library does."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for file, data in files.items():
        blob = repository / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / file).symlink_to(blob)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(COMMIT)
    return snapshot


@pytest.mark.parametrize("text", ["gpt2", "org/name", "Qwen/Qwen2.5-0.5B", "a_b/c.d-e"])
def test_a_name_on_the_hub(text: str) -> None:
    assert is_hub_name(text)


@pytest.mark.parametrize(
    "text", ["./name", "../org/name", "/org/name", "~/name", "a/b/c", "", "org/", "a b", "a..b", "x--y"]
)
def test_a_path_is_no_name(text: str) -> None:
    assert not is_hub_name(text)


def test_a_directory_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(Model(path=str(tmp_path))) == tmp_path
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve(Model(path="org/name")) == Path("org/name")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(Model(path="~/org")) == tmp_path / "org"


def test_a_model_in_the_cache_needs_no_network(cache: Path, files: dict[str, bytes]) -> None:
    snapshot = put(cache, "org/tiny", files)
    assert resolve(Model(path="org/tiny")) == snapshot
    assert resolve(Model(path="org/tiny", revision=COMMIT)) == snapshot
    assert load_pretrained(snapshot, vocab_size=20)[1] == []
    world = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))
    assert resolve_together(Model(path="org/tiny"), world) == snapshot


def test_a_revision_is_looked_up(cache: Path, files: dict[str, bytes]) -> None:
    snapshot = put(cache, "org/tiny", files, ref="v2")
    assert resolve(Model(path="org/tiny", revision="v2")) == snapshot
    with pytest.raises(
        ModelError, match=r"does not have the whole model at revision 'v1'. Run `hf download org/tiny --rev"
    ):
        resolve(Model(path="org/tiny", revision="v1"))


def said(model: Model) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(model)
    return str(caught.value)


def test_what_cannot_be_a_model_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert "a file; expected a directory with config.json" in said(Model(path=str(file)))
    assert "no such directory; expected a directory" in said(Model(path=str(tmp_path / "none")))
    assert "'~/nowhere-at-all': no such directory" in said(Model(path="~/nowhere-at-all"))
    assert "is a directory and revision = 'main' belongs" in said(Model(path=str(tmp_path), revision="main"))


def test_offline_and_not_in_the_cache_names_cache_and_command(cache: Path) -> None:
    text = said(Model(path="org/absent"))
    assert f"its cache ({cache}) does not have the whole model. Run `hf download org/absent`" in text


def test_a_cache_with_the_tokenizer_alone_is_no_model(cache: Path, files: dict[str, bytes]) -> None:
    put(cache, "org/half", {"tokenizer.json": b"{}"})
    assert "config.json, model.safetensors is missing in" in said(Model(path="org/half"))
    index = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    )
    put(cache, "org/shards", {"config.json": files["config.json"], "model.safetensors.index.json": index.encode()})
    assert "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors is missing" in said(
        Model(path="org/shards")
    )


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
        elif path.startswith("/api/") and path.endswith("/revision/v9"):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith("/api/") and "/revision/" in path:
            self.answer(200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": []}).encode(), {})
        elif path.startswith("/api/") and "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
                for name, data in self.files.items()
            ]
            self.answer(200, json.dumps(tree).encode(), {})
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
def hub(cache: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    others = {
        "pytorch_model.bin": b"a pickle",
        "onnx/model.safetensors": b"for another program",
        "consolidated.safetensors": b"the same weights",
        "tokenizer.json": b"{}",
        "chat_template.jinja": b"",
    }
    handler = type("Handler", (Hub,), {"files": files | others, "asked": []})
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


def test_a_download_takes_what_a_model_needs_and_no_pickle(hub: type[Hub], cache: Path) -> None:
    found = resolve(Model(path="org/tiny"))
    assert found == cache / "models--org--tiny" / "snapshots" / COMMIT
    names = {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert {file.name for file in found.iterdir()} == names
    assert set(hub.asked) == names
    assert load_pretrained(found, vocab_size=20)[1] == []
    hub.asked.clear()
    assert resolve(Model(path="org/tiny"), is_cached=True) == found
    assert hub.asked == []


def test_what_the_hub_refuses_is_said_with_its_remedy(hub: type[Hub]) -> None:
    assert "this model is gated; accept its conditions at http://127.0.0.1" in said(Model(path="org/gated"))
    assert "no such directory here, and no such model on http://127.0.0.1" in said(Model(path="org/absent"))
    assert "that model has no revision 'v9'" in said(Model(path="org/tiny", revision="v9"))


def test_a_model_in_pickles_alone_is_refused(hub: type[Hub]) -> None:
    del hub.files["model.safetensors"]
    text = said(Model(path="org/tiny"))
    assert "model.safetensors is missing in" in text
    assert "weights in pickles (*.bin) are not read" in text
