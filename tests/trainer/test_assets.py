"""Tokenizer, template and stop ids: those that the packs were made with, or none."""

import hashlib
import shutil
from pathlib import Path

import msgspec
import pytest
import torch

from trainer.data.assets import NEEDED, decode_generation_config, decode_tokenizer, other_tokenizer, read_assets
from trainer.data.inputs import open_inputs
from trainer.data.packs import read_manifest
from trainer.errors import DataError
from trainer.world import World

ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))


def test_the_files_are_read_when_they_are_those_of_the_manifest(run: Path) -> None:
    files = read_assets(run, read_manifest(run))
    assert files == {name: (run / "tokenizer" / name).read_bytes() for name in NEEDED}


@pytest.mark.parametrize("name", NEEDED)
def test_a_file_that_is_not_the_packs_own_is_refused_naming_both_hashes(name: str, run: Path) -> None:
    path = run / "tokenizer" / name
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes() + b"\n")
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError) as caught:
        open_inputs(run, ALONE)
    assert str(caught.value) == (
        f"{path}: not the file that the packs were made with: expected sha256 {expected}, got {got}; "
        "run `chatloom data` again"
    )


def test_every_missing_file_is_named(run: Path) -> None:
    shutil.rmtree(run / "tokenizer")
    with pytest.raises(DataError) as caught:
        read_assets(run, read_manifest(run))
    lines = str(caught.value).splitlines()
    assert [line.split(": not found")[0] for line in lines] == [
        str(run / "tokenizer" / name) for name in sorted(NEEDED)
    ]


def test_an_older_manifest_lists_none_and_they_are_taken_as_they_are(run: Path) -> None:
    manifest = msgspec.structs.replace(read_manifest(run), assets={})
    (run / "tokenizer" / "chat_template.jinja").write_text("x")
    assert read_assets(run, manifest)["chat_template.jinja"] == b"x"


@pytest.mark.parametrize("path", ["tokenizer/../secret", "/etc/passwd", "tokenizer/a/b", "tokenizer", "/"])
def test_a_manifest_cannot_make_the_export_carry_other_files(path: str, run: Path) -> None:
    manifest = read_manifest(run)
    manifest = msgspec.structs.replace(manifest, assets=manifest.assets | {path: "0"})
    with pytest.raises(DataError, match="outside the tokenizer"):
        read_assets(run, manifest)


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    for data in (b"{}", b"[]", b"\xff", b'{"version": "1.0", "model": {"type": "BPE"}}'):
        with pytest.raises(DataError, match=r"tokenizer\.json: not a tokenizer\.json that can be read"):
            decode_tokenizer(data, where=tmp_path / "tokenizer.json")


def test_a_generation_config_must_name_a_stop_token(tmp_path: Path) -> None:
    assert decode_generation_config(b'{"eos_token_id": 7, "temperature": 0.6}', where=tmp_path).stop_ids() == {7}
    for data, said in ((b'{"eos_token_id": []}', "no answer could ever end"), (b"[]", "chatloom data"), (b"\xff", "a")):
        with pytest.raises(DataError, match=said):
            decode_generation_config(data, where=tmp_path)


def test_a_model_with_a_tokenizer_of_another_size_is_pointed_at(run: Path, tmp_path: Path) -> None:
    own = open_inputs(run, ALONE).tokenizer
    assert other_tokenizer(tmp_path, own, {}) is None
    shutil.copy(run / "tokenizer" / "tokenizer.json", tmp_path)
    assert other_tokenizer(tmp_path, own, {}) is None
    own.add_tokens(["<new>"])
    own.save(str(tmp_path / "tokenizer.json"))
    warning = other_tokenizer(tmp_path, open_inputs(run, ALONE).tokenizer, {})
    assert warning is not None
    assert "has 305 tokens, the run's tokenizer 304" in warning


def test_a_tokenizer_that_differs_by_the_added_tokens_alone_is_the_model_s_own(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "tokenizer" / "tokenizer.json", tmp_path)
    grown = open_inputs(run, ALONE).tokenizer
    grown.add_special_tokens(["<new>", "<newer>"])
    assert other_tokenizer(tmp_path, grown, {"<new>": 304, "<newer>": 305}) is None
    warning = other_tokenizer(tmp_path, grown, {"<newer>": 305})
    assert warning is not None
    assert "has 304 tokens, the run's tokenizer 306" in warning


def test_a_named_template_travels_in_its_directory(run: Path) -> None:
    manifest = read_manifest(run)
    home = run / "tokenizer" / "additional_chat_templates"
    home.mkdir()
    (home / "tool_use.jinja").write_text("{{ tools }}")
    digest = hashlib.sha256(b"{{ tools }}").hexdigest()
    path = "tokenizer/additional_chat_templates/tool_use.jinja"
    files = read_assets(run, msgspec.structs.replace(manifest, assets=manifest.assets | {path: digest}))
    assert files["additional_chat_templates/tool_use.jinja"] == b"{{ tools }}"


@pytest.mark.parametrize("name", ["", "tokenizer/a\0b", "tokenizer/../x", "/etc/passwd", "tokenizer"])
def test_an_asset_elsewhere_is_refused(name: str, run: Path) -> None:
    manifest = msgspec.structs.replace(read_manifest(run), assets={name: "0"})
    with pytest.raises(DataError, match="is outside the tokenizer"):
        read_assets(run, manifest)
