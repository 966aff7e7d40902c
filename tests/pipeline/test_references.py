"""What a corpus is compared with: read as leniently as can be, built beside the run, and never silently nothing."""

import json
import shutil
from pathlib import Path

import msgspec
import polars as pl
import pytest

from pipeline.config import load_config
from pipeline.progress import Progress
from pipeline.run import Built, build
from pipeline.source import SourceError
from pipeline.store import DamagedShardError
from schemas.manifest import read_manifest
from schemas.settings import ConfigError
from tests.corpus import shards_of, write_config, write_corpus

QUESTION = {"question": "What holds the river?", "choices": ["a dam", "a bed"], "answer": "B", "difficulty": 3}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, write_corpus(tmp_path / "in" / "a.jsonl", 40), shard_bytes=4 << 10)


def run(config: Path, *assignments: str, until: str = "clusters", progress: Progress | None = None) -> Built:
    return build(load_config(config, assignments=assignments), until=until, progress=progress)


def naming(setting: str, *paths: Path) -> str:
    return f"clusters.{setting}={[str(path) for path in paths]}"


def write_lines(path: Path, *records: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    return path


def signed(directory: Path) -> pl.DataFrame:
    return pl.concat(pl.read_ipc(path) for path in sorted(directory.glob("signatures/kept/*.arrow")))


def said(directory: Path) -> list[str]:
    return [
        "|".join(message["content"] for message in messages)
        for path in sorted(directory.glob("length/kept/*.arrow"))
        for messages in pl.read_ipc(path)["messages"]
    ]


def times(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(directory.rglob("*")) if path.is_file()}


def test_files_of_any_shape_are_signed_beside_the_run(tmp_path, config):
    a = write_lines(tmp_path / "eval" / "a.jsonl", QUESTION, {"messages": [{"role": "user", "content": "Who am I?"}]})
    b = write_lines(
        tmp_path / "eval" / "b.json", json.dumps([{"prompt": "Count", "completion": "1 2 3"}, [["x", "y"]]])
    )
    c = write_lines(tmp_path / "eval" / "c.txt", "[a line of text", "", "another")
    run(config, naming("evaluations", tmp_path / "eval"))
    nested = tmp_path / "run" / "references" / "evaluations"
    assert said(nested) == [
        "What holds the river?\na dam\na bed\nB",
        "Who am I?",
        "Count|1 2 3",
        "x\ny",
        "[a line of text",
        "another",
    ]
    assert signed(nested)["id"].to_list() == [f"{a}:1", f"{a}:2", f"{b}:1", f"{b}:2", f"{c}:1", f"{c}:3"]
    assert signed(nested).schema == signed(tmp_path / "run").schema
    assert not (tmp_path / "run" / "references" / "against").exists()


def test_no_bound_of_the_corpus_leaves_out_what_it_is_compared_with(tmp_path, config):
    short = write_lines(tmp_path / "short.jsonl", {"messages": [{"role": "assistant", "content": "Hi"}]})
    run(config, naming("against", short), "length.min_chars=20", "length.min_turns=2", "ingest.shape=messages")
    assert said(tmp_path / "run" / "references" / "against") == ["Hi"]


def test_only_what_changed_is_read_again_and_the_corpus_is_then_compared_anew(tmp_path, config):
    eval_ = write_corpus(tmp_path / "eval.jsonl", 40, seed=1)
    setting = naming("evaluations", eval_)
    n = len([t for t in run(config, setting).timings if t.stage == "evaluations/signatures"])
    assert run(config, setting, "clusters.memory=1.5").was_fresh
    with eval_.open("a") as file:
        file.write(json.dumps(QUESTION) + "\n")
    again = [timing.stage for timing in run(config, setting).timings]
    assert again == ["evaluations/ingest", "evaluations/length", "evaluations/signatures", "clusters"]
    assert n > 2
    appended = shards_of(tmp_path / "run")
    build(load_config(config, assignments=[setting]), until="clusters", fresh=True)
    assert shards_of(tmp_path / "run") == appended


def test_a_reference_no_longer_named_is_removed(tmp_path, config):
    run(config)
    plain = shards_of(tmp_path / "run")
    paths = naming("against", write_lines(tmp_path / "a.jsonl", QUESTION))
    run(config, paths, naming("evaluations", write_lines(tmp_path / "b.jsonl", QUESTION)))
    run(config, paths)
    assert [path.name for path in (tmp_path / "run" / "references").iterdir()] == ["against"]
    run(config)
    assert shards_of(tmp_path / "run") == plain
    assert not (tmp_path / "run" / "references").exists()


def test_what_is_found_is_told(tmp_path, config):
    class Heard(Progress):
        def referred(self, name, paths, n_records, unreadable, directory) -> None:
            heard.append((name, list(paths), n_records, dict(unreadable), str(directory)))

    heard: list[object] = []
    nested = str(tmp_path / "run" / "references" / "evaluations")
    eval_ = write_lines(tmp_path / "eval.jsonl", QUESTION, "{broken", {"n": 3}, {"n": 4})
    run(config, naming("evaluations", eval_), progress=Heard())
    assert heard == [("evaluations", [str(eval_)], 1, {"bad_json": 1, "unknown_shape": 2}, nested)]


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "it is empty"), ('{"n": 1}\n{broken\n{"n": 2}\n', "2 unknown_shape, 1 bad_json"), ("\n\n", "it is empty")],
)
def test_a_file_without_a_readable_record_stops_the_build(tmp_path, config, text, why):
    good = write_lines(tmp_path / "good.jsonl", QUESTION)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(text)
    with pytest.raises(SourceError, match=rf"\[clusters\] evaluations: no record of {bad} can be read.*\({why}\)"):
        run(config, naming("evaluations", good, bad))


def test_a_file_without_a_text_in_the_scope_stops_the_build(tmp_path, config):
    eval_ = write_lines(tmp_path / "eval.jsonl", QUESTION)
    with pytest.raises(SourceError, match=r"no record of .*eval\.jsonl has a text in the scope .*\(answer\)"):
        run(config, naming("evaluations", eval_), "signatures.scope=answer")
    run(config, naming("evaluations", eval_), "signatures.scope=prompt")


def test_what_names_nothing_is_a_mistake_that_leaves_no_run_directory(tmp_path, config):
    for name in ("none.jsonl", "none/*", "config.toml"):
        with pytest.raises(ConfigError, match=rf"\[clusters\] against.*{name[:4]}"):
            run(config, naming("against", tmp_path / name))
    assert not (tmp_path / "run").exists()


def test_an_input_of_the_run_is_refused_by_whatever_name(tmp_path, config):
    link = tmp_path / "other.jsonl"
    link.symlink_to(tmp_path / "in" / "a.jsonl")
    for path in (tmp_path / "in" / "a.jsonl", tmp_path / "in", link):
        with pytest.raises(ConfigError, match=r"is an input of this run \(.*a\.jsonl\).*similar to themselves"):
            run(config, naming("evaluations", path))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Return a finished run of other rows."""
    (tmp_path / "other").mkdir()
    config = write_config(tmp_path / "other", write_corpus(tmp_path / "other" / "b.jsonl", 30, seed=2))
    run(config, until="signatures")
    return tmp_path / "other" / "run"


def test_a_finished_run_is_used_where_it_lies(tmp_path, config, other):
    before = times(other)
    run(config, naming("against", other))
    assert times(other) == before
    assert not (tmp_path / "run" / "references").exists()
    moved = tmp_path / "moved"
    shutil.move(other, moved)
    assert run(config, naming("against", moved)).was_fresh  # paths say nothing, rows do


def test_rows_of_a_run_count_as_the_files_that_it_was_made_from(tmp_path, config, other):
    run(config, naming("against", other))
    key = read_manifest(tmp_path / "run", "clusters").key
    run(config)
    assert read_manifest(tmp_path / "run", "clusters").key != key
    run(config, naming("against", tmp_path / "other" / "b.jsonl"))
    nested = tmp_path / "run" / "references" / "against"
    assert signed(nested).equals(signed(other))


def test_a_run_that_was_signed_otherwise_is_refused_with_the_difference(config, other):
    with pytest.raises(ConfigError, match=r"\[signatures\] ngram = 5 there, 3 here, num_perm = 128 there, 64 here\."):
        run(config, naming("against", other), "signatures.num_perm=64", "signatures.ngram=3")
    with pytest.raises(ConfigError, match=r'scope = "conversation" there, \["conversation", "turns"\] here\.'):
        run(config, naming("against", other), 'signatures.scope=["conversation", "turns"]')


def test_a_run_of_another_version_is_refused_with_the_difference(config, other):
    path = other / "signatures" / "manifest.json"
    manifest = read_manifest(other, "signatures")
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, settings="")))
    with pytest.raises(ConfigError, match=r"made by another version \(of Chatloom or Python\).*--until signatures"):
        run(config, naming("against", other))
    libraries = manifest.libraries | {"numpy": "1.0"}
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, settings="", libraries=libraries)))
    with pytest.raises(ConfigError, match=r"made by another version \(numpy 1\.0 there, .* here\)"):
        run(config, naming("against", other))


def test_an_unfinished_run_is_not_read_as_files(config, other):
    (other / "signatures" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"run is a run whose signatures are not complete. Finish it \(chatloom data"):
        run(config, naming("against", other))


def test_a_run_that_lost_a_shard_is_refused_before_anything_is_read(tmp_path, config, other):
    next((other / "signatures" / "kept").glob("*.arrow")).unlink()
    with pytest.raises(ConfigError, match=r"are not complete. Finish it \(chatloom data .*other/run/config.toml --run"):
        run(config, naming("against", other))
    assert not (tmp_path / "run").exists()


def test_the_run_itself_and_a_run_of_the_same_files_are_refused(tmp_path, config, other):
    run(config)
    with pytest.raises(ConfigError, match="the run itself"):
        run(config, naming("against", tmp_path / "run"))
    both = [str(tmp_path / "in" / "a.jsonl"), str(tmp_path / "other" / "b.jsonl")]
    with pytest.raises(ConfigError, match=r"other/run was made from .*b\.jsonl, which is an input of this run"):
        run(config, naming("against", other), f"source.inputs={both}")


def fates(directory: Path) -> dict[int, dict[str, object]]:
    """Return what clusters say of each line of the corpus."""
    frames = [pl.read_ipc(path) for path in sorted(directory.glob("clusters/kept/*.arrow"))]
    return {int(row["id"].rpartition(":")[2]): row for row in pl.concat(frames).to_dicts()}


def test_rows_that_others_have_too_are_dropped_in_their_favour(tmp_path, config):
    lines = (tmp_path / "in" / "a.jsonl").read_text().splitlines()
    others = write_lines(tmp_path / "others.jsonl", QUESTION, lines[4], lines[17])
    run(config, naming("against", others))
    found = {line: row for line, row in fates(tmp_path / "run").items() if row["reason"]}
    assert {line: (row["reason"], row["keeper"], row["similarity"]) for line, row in found.items()} == {
        5: ("against", f"{others}:2", 1.0),
        18: ("against", f"{others}:3", 1.0),
    }
    as_files = shards_of(tmp_path / "run")
    (tmp_path / "other").mkdir()
    run(write_config(tmp_path / "other", others), "length.min_turns=1", until="signatures")
    run(config, naming("against", tmp_path / "other" / "run"))
    as_run = shards_of(tmp_path / "run")
    # the question has no answer, so the run does not have it; nothing else differs
    assert {path for path in as_run if as_files[path] != as_run[path]} <= {
        path for path in as_run if path.startswith("clusters/") and path.endswith(".json")
    }


def test_rows_that_contain_a_question_of_another_shape_are_reported_or_dropped(tmp_path, config):
    lines = (tmp_path / "in" / "a.jsonl").read_text().splitlines()
    messages = json.loads(lines[9])["messages"]
    asked = {"n": 1, "question": messages[0]["content"], "choices": [messages[1]["content"]]}
    eval_ = write_lines(tmp_path / "eval.jsonl", QUESTION, asked)
    run(config, naming("evaluations", eval_))
    row = fates(tmp_path / "run")[10]
    assert (row["evaluation"], row["reason"]) == (f"{eval_}:2", None)
    assert row["overlap"] > 0.5
    assert [line for line, row in fates(tmp_path / "run").items() if row["evaluation"]] == [10]
    run(config, naming("evaluations", eval_), "clusters.contaminated=drop")
    assert [line for line, row in fates(tmp_path / "run").items() if row["reason"] == "contaminated"] == [10]


def test_a_damaged_shard_of_a_reference_is_named_not_used(tmp_path, config):
    paths = naming("against", write_corpus(tmp_path / "others.jsonl", 30, seed=4))
    run(config, paths)
    shard = tmp_path / "run" / "references" / "against" / "signatures" / "kept" / "00000.arrow"
    good = shard.read_bytes()
    shard.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    with pytest.raises(DamagedShardError, match=r"references/against/signatures/kept/00000\.arrow"):
        run(config, paths, "clusters.threshold=0.7")
    build(load_config(config, assignments=[paths, "clusters.threshold=0.7"]), until="clusters", verify=True)
    assert shard.read_bytes() == good
