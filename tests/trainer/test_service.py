"""Answers over a pipe, as the process that writes them gives them."""

import io
import json
from pathlib import Path

import msgspec
import pytest

from schemas.answers import Ask, Cancel, Opening, Reply, Request
from schemas.generation import Generation
from schemas.models import Model
from trainer.answers.generate import answers
from trainer.answers.service import Wire, serve, stop_ids_of
from trainer.data.assets import GenerationConfig
from trainer.errors import ModelError
from trainer.export import export
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.model.weights import load_pretrained

SETTINGS = Generation(max_new_tokens=6, temperature=1.0, batch=2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = Model(hidden_size=16, num_attention_heads=2, num_hidden_layers=2, max_position_embeddings=30)
    model = Decoder(new_architecture(sizes, vocab_size=20))
    initialise(model, seed=0)
    path = tmp_path_factory.mktemp("service") / "export"
    generation = GenerationConfig(eos_token_id=[7])
    assets = {"generation_config.json": b'{"eos_token_id": [7]}'}
    export(path, model, assets=assets, generation=generation, dtype="float32")
    return path


def say(directory: Path, *requests: Request) -> list[dict[str, object]]:
    given = b"".join(msgspec.json.encode(request) + b"\n" for request in requests)
    out = io.BytesIO()
    serve(directory, Wire(io.BytesIO(given), out))
    lines = out.getvalue().splitlines()
    for line in lines:
        msgspec.json.decode(line, type=Reply)
    return [json.loads(line) for line in lines]


def test_every_prompt_is_answered_or_refused_and_streamed_where_it_is_asked_for(directory: Path) -> None:
    prompts = [[1, 2, 3], [4], [5, 6], [8] * 9]
    asks = [Ask(key=i, input_ids=tuple(ids), seed=9 + i, is_streamed=i == 2) for i, ids in enumerate(prompts)]
    ready, *replies = say(
        directory,
        Opening(generation=SETTINGS, stop_ids=(11,)),
        Ask(key=90, input_ids=tuple([1] * 30), seed=0),
        *asks,
        Ask(key=91, input_ids=(1, 20), seed=0),
    )
    assert ready["type"] == "ready"
    assert ready["room"] == 30
    model, _ = load_pretrained(directory, vocab_size=0)
    expected = answers(model, prompts, settings=SETTINGS, stop_ids={7, 11}, seed=9)
    assert {answer.is_stopped for answer in expected} == {True, False}
    found = {reply["key"]: reply for reply in replies if reply["type"] == "answered"}
    assert sorted(found) == [0, 1, 2, 3]  # type: ignore[type-var]
    for key, answer in enumerate(expected):
        ids = list(answer.ids[:-1] if answer.is_stopped else answer.ids)
        assert found[key] == {"type": "answered", "key": key, "ids": ids, "is_stopped": answer.is_stopped}
    assert [r["id"] for r in replies if r["type"] == "token" and r["key"] == 2] == found[2]["ids"]
    assert {r["key"] for r in replies if r["type"] == "token"} == {2}
    refused = {reply["key"]: reply["reason"] for reply in replies if reply["type"] == "refused"}
    assert sorted(refused) == [90, 91]  # type: ignore[type-var]


def test_what_is_cancelled_is_answered_with_what_there_is(directory: Path) -> None:
    ask = Ask(key=1, input_ids=(1, 2), seed=0)
    replies = say(directory, Opening(generation=SETTINGS), ask, Cancel(key=1), Cancel(key=5))
    assert replies[1:] == [{"type": "answered", "key": 1, "ids": [], "is_stopped": False}]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{}\n", "not a request"),
        (b"\xff\n", "not a request"),
        (msgspec.json.encode(Ask(key=1, input_ids=(1,), seed=0)) + b"\n", "must be an opening"),
    ],
)
def test_what_is_no_request_ends_it(directory: Path, line: bytes, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        serve(directory, Wire(io.BytesIO(line), io.BytesIO()))


def test_nothing_asked_is_nothing_done(tmp_path: Path) -> None:
    serve(tmp_path / "none", Wire(io.BytesIO(b""), io.BytesIO()))


def test_stop_tokens_are_those_of_generation_config_or_else_of_config(tmp_path: Path) -> None:
    assert stop_ids_of(tmp_path) == frozenset()
    (tmp_path / "config.json").write_text('{"eos_token_id": 3}')
    assert stop_ids_of(tmp_path) == {3}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [4, 5], "do_sample": true}')
    assert stop_ids_of(tmp_path) == {4, 5}
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"generation_config\.json: cannot be read"):
        stop_ids_of(tmp_path)


def test_a_model_without_any_stop_token_is_refused(directory: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    with pytest.raises(ModelError, match="so no answer could end"):
        say(tmp_path, Opening(generation=SETTINGS))
