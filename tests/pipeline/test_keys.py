import dataclasses

import msgspec
import pyarrow as pa
import pytest

from pipeline import keys
from pipeline.graph import CONFIGS, GRAPH, NAMES, by_name, phases
from pipeline.plan import corpus_key
from pipeline.source import Source
from schemas.assets import Template, Vocabulary
from schemas.fields import field
from schemas.manifest import FileRecord, ShardRecord
from stages.dedup import Dedup

ASSETS = {
    "template": Template(name="t", source="{{ messages }}"),
    "vocabulary": Vocabulary(tokenizer_json=b"{}"),
}


def key(name: str, **changes: object) -> str:
    stage = by_name(name)
    configs = {name: kind() for name, kind in CONFIGS.items()} | changes.pop("also", {})
    configs[name] = msgspec.structs.replace(configs[name], **changes.pop("config", {}))
    assets = ASSETS | changes.pop("assets", {})
    source = changes.pop("source", Source())
    return keys.stage_key(dataclasses.replace(stage, **changes), configs, assets, source)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_stage_and_settings_have_the_same_key(name):
    assert key(name) == key(name)


def test_keys_differ_between_stages():
    assert len({key(name) for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("length", {"config": {"min_chars": 3}}),
        ("length", {"writes": by_name("length").writes.append(field("n", pa.int32(), "more"))}),
        ("ingest", {"evidence": pa.schema([])}),
        ("render", {"assets": {"template": Template(name="t", source="{{ messages }} ")}}),
        (
            "render",
            {"assets": {"template": Template(name="t", source="{{ messages }}", variables={"bos_token": "<s>"})}},
        ),
        ("tokenize", {"assets": {"vocabulary": Vocabulary(tokenizer_json=b"{ }")}}),
        ("ingest", {"source": Source(max_line_bytes=1 << 12)}),
        ("clusters", {"config": {"threshold": 0.7}}),
        ("clusters", {"also": {"dedup": Dedup(seed=1)}}),  # it draws the splits
        ("mask", {"report": None}),  # counts stand in the record, and a stale one would be believed
    ],
)
def test_whatever_determines_the_output_changes_the_key(name, changes):
    assert key(name, **changes) != key(name)


def test_an_asset_touches_only_the_stages_that_take_it():
    other = {"vocabulary": Vocabulary(tokenizer_json=b"{ }")}
    assert [name for name in NAMES if key(name, assets=other) != key(name)] == ["tokenize"]


def test_a_library_version_changes_the_key(monkeypatch):
    before = key("mask")
    keys.closure.cache_clear()
    keys._version.cache_clear()
    monkeypatch.setattr(keys.importlib.metadata, "version", lambda name: f"{name}-next")
    try:
        assert key("mask") != before
    finally:
        keys.closure.cache_clear()
        keys._version.cache_clear()


def test_the_code_of_a_stage_is_all_it_imports_of_ours():
    modules = {name for name, _ in keys.closure(("stages.pack",))[0]}
    assert {"stages.pack", "stages.pack.kernels", "stages.arrow", "schemas.reasons"} <= modules
    assert not any(name.startswith(("stages.render", "stages.mask", "pipeline")) for name in modules)


def test_editing_a_module_changes_the_key_of_its_users_only(monkeypatch):
    before = {name: key(name) for name in NAMES}
    keys.closure.cache_clear()
    real = keys._find

    class Edited:
        name = "kernels.py"

        @staticmethod
        def read_bytes() -> bytes:
            return real("stages.pack.kernels").read_bytes() + b"\n# a comment\n"

    monkeypatch.setattr(keys, "_find", lambda name: Edited if name == "stages.pack.kernels" else real(name))
    try:
        assert [name for name in NAMES if key(name) != before[name]] == ["pack"]
    finally:
        keys.closure.cache_clear()


def test_digests_are_framed():
    assert keys.digest("ab", "c") != keys.digest("a", "bc")


def test_phases_fuse_what_needs_no_barrier():
    assert [[stage.name for stage in phase] for phase in phases(GRAPH)] == [
        ["ingest", "length", "signatures"],
        ["clusters"],
        ["dedup", "render", "tokenize", "mask", "pack"],
    ]


def test_where_an_asset_lies_and_which_inputs_there_are_is_no_part_of_a_key():
    assert key("tokenize", config={"tokenizer": "elsewhere"}) == key("tokenize")
    assert key("render", config={"template": "elsewhere.jinja"}) == key("render")
    assert key("ingest", source=Source(inputs=("a.jsonl",))) == key("ingest")
    assert key("clusters", config={"against": ("a.jsonl",), "evaluations": ("b.jsonl",)}) == key("clusters")


def test_what_clustering_may_take_of_memory_is_no_part_of_its_key():
    assert key("clusters", config={"memory": 0.5}) == key("clusters")


def test_what_a_corpus_stage_reads_beside_its_input_is_part_of_its_key():
    def record(sha256: str) -> ShardRecord:
        file = FileRecord(path="kept/00000.arrow", rows=1, bytes=1, sha256=sha256)
        return ShardRecord(shard=0, key="", rows_in=1, kept=1, dropped={}, files=(file,))

    a, b = record("a"), record("b")
    found = {
        corpus_key("k", [inputs], {"against": against, "evaluations": evaluations})
        for inputs, against, evaluations in [
            ([a, b], [], []),
            ([b, a], [], []),
            ([a], [b], []),
            ([a], [], [b]),
            ([b], [a], []),
            ([a], [a, b], []),
            ([a], [b, a], []),
            ([a], [a], [b]),
        ]
    }
    assert len(found) == 8


def test_the_code_that_cuts_files_is_part_of_the_key_of_what_reads_them():
    modules = {name for name, _ in keys.closure(keys.READER)[0]}
    assert modules >= {
        "pipeline.source.cutting",
        "pipeline.source.reading",
        "pipeline.source.scan",
        "stages.ingest.rules",
    }
    for reader in keys.READER:
        path = keys._find(reader)
        assert path is not None
        imported = keys._imports(reader, path.read_bytes(), is_package=False)
        # whatever of pipeline the reader imports is named, for the closure does not follow it
        ours = {name for name in imported if name.startswith("pipeline.") and keys._find(name)}
        assert ours <= {*keys.READER, "pipeline.lean"}, reader  # what a process leaves unloaded changes no row


def test_the_code_that_splits_and_writes_is_part_of_every_key():
    modules = {name for name, _ in keys.closure(keys.WRITER)[0]}
    assert modules >= {"pipeline.halves", "pipeline.store", "schemas.conform", "schemas.files"}
    for writer in keys.WRITER:
        imported = keys._imports(writer, keys._find(writer).read_bytes(), is_package=False)
        found = {name for name in imported if name.startswith("pipeline.") and keys._find(name)}
        assert found <= {*keys.WRITER, "pipeline.graph"}  # what of the graph decides stands in the key by value
