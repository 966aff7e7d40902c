"""`chatloom generate`, with a real model in a real process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli import main
from tests.corpus import ROOT
from tests.pipeline.conftest import ROOM

N = 40


def write_prompts(path: Path) -> Path:
    """Write records of every shape, some of them bad."""
    lines = [json.dumps({"messages": [{"role": "user", "content": f"What comes after {i}?"}]}) for i in range(N)]
    lines[3] = '{"messages": [{"role": "user", "content": "What'
    lines[4] = json.dumps({"instruction": "Name a colour.", "input": "", "output": "Red."})
    lines[5] = json.dumps({"prompt": "Say a word."})
    lines[6] = json.dumps({"messages": [{"role": "assistant", "content": "Nobody asked."}]})
    lines[7] = json.dumps({"messages": [{"role": "user", "content": "How many days are there? " * ROOM}]})
    lines[8] = json.dumps(
        {
            "conversations": [
                {"from": "human", "value": "One?"},
                {"from": "gpt", "value": "Two."},
                {"from": "human", "value": "Three?"},
                {"from": "gpt", "value": "Four."},
            ]
        }
    )
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def done(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    home = tmp_path_factory.mktemp("generate")
    prompts = write_prompts(home / "prompts.jsonl")
    code = main(["generate", str(trained), "--input", str(prompts), "--output", str(home / "out.jsonl")])
    return prompts, home / "out.jsonl", code


def test_every_record_has_a_line_in_its_place_and_bad_ones_say_why(done: tuple[Path, Path, int]) -> None:
    prompts, output, code = done
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert code == 3
    assert [line["id"] for line in lines] == [f"{prompts}:{number}" for number in range(1, N + 1)]
    errors = {number: line["error"] for number, line in enumerate(lines) if "error" in line}
    assert sorted(errors) == [3, 6, 7]
    assert errors[3].startswith("bad_json: ")
    assert errors[6] == "nothing is asked: there is no message before the answer"
    assert f"the model is made for {ROOM} (max_position_embeddings), answer included" in errors[7]
    answered = [line for line in lines if "error" not in line]
    assert {line["finish"] for line in answered} == {"stop", "length"}
    for line in answered:
        assert "<|im_end|>" not in line["prediction"]
        assert (line["n_tokens"] == 24) or line["finish"] == "stop"
    assert len({line["settings"] for line in lines}) == 1


def test_the_last_answer_of_a_record_is_what_is_expected(done: tuple[Path, Path, int]) -> None:
    lines = [json.loads(line) for line in done[1].read_text().splitlines()]
    assert lines[4]["messages"] == [{"role": "user", "content": "Name a colour."}]
    assert lines[4]["expected"] == "Red."
    assert lines[5]["messages"] == [{"role": "user", "content": "Say a word."}]
    assert "expected" not in lines[5]
    assert [said["content"] for said in lines[8]["messages"]] == ["One?", "Two.", "Three?"]
    assert lines[8]["expected"] == "Four."


def test_what_was_interrupted_is_continued_to_the_same_bytes(
    trained: Path, done: tuple[Path, Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, whole, _ = done
    output = tmp_path / "out.jsonl"
    arguments = ["generate", str(trained), "--input", str(prompts), "--output", str(output)]
    slowly = [*arguments, "--set", "generation.batch=1"]  # changes nothing but the speed
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *slowly],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    while not output.exists() or output.read_bytes().count(b"\n") < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what is answered is kept" in out
    assert "--set generation.batch=1" in out
    kept = output.read_bytes()
    n_kept = kept.count(b"\n")
    assert 2 <= n_kept < N
    # as if the process had been killed while it wrote
    output.write_bytes(kept + b'{"id": "')
    assert main(arguments) == 3
    assert output.read_bytes() == whole.read_bytes()
    n_errors = sum(b'"error"' in line for line in kept.splitlines())
    assert f"{n_kept - n_errors} were there already, 3 with an error" in capsys.readouterr().out


def test_a_file_of_other_settings_is_not_continued(
    trained: Path, done: tuple[Path, Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, output, _ = done
    before = output.read_bytes()
    arguments = ["generate", str(trained), "--input", str(prompts), "--output", str(output)]
    assert main([*arguments, "--set", "generation.top_k=9"]) == 2
    assert f"{output}:1: the predictions in this file are of another model or other settings" in capsys.readouterr().err
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN/nowhere"], "no such directory"),
        (["RUN/train"], "holds no config.json"),
        (["RUN", "--set", "train.lr=1"], "unknown section 'train'"),
        (["RUN", "--set", "generation.temperature=0"], "do nothing at temperature = 0"),
        (["RUN", "--input", "none.jsonl"], "none.jsonl"),
    ],
)
def test_a_mistake_gets_a_sentence(
    trained: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("RUN", str(trained)) for argument in arguments]
    assert main(["generate", *given]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("prompts.jsonl", "is an input; the predictions would take its place"),
        ("link.jsonl", "is an input; the predictions would take its place"),
        ("nowhere/out.jsonl", "there is no directory"),
        (".", "is a directory"),
        ("/dev/full", "is no regular file"),
    ],
)
def test_fresh_removes_no_input_and_writes_to_files_only(
    trained: Path, output: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Say a word."}\n')
    (tmp_path / "link.jsonl").symlink_to(prompts)
    arguments = ["generate", str(trained), "--input", str(prompts), "--output", str(tmp_path / output)]
    assert main([*arguments, "--fresh"]) == 2
    assert said in capsys.readouterr().err
    assert prompts.read_text() == '{"prompt": "Say a word."}\n'


def test_a_run_without_a_model_says_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pack").mkdir()
    assert main(["generate", str(tmp_path)]) == 2
    assert f"`chatloom train CONFIG --run {tmp_path}` trains the model" in capsys.readouterr().err


def test_adapters_alone_are_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = tmp_path / "train" / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    for given in (tmp_path, adapter):
        assert main(["generate", str(given)]) == 2
        assert f"{adapter}: adapters without their model" in capsys.readouterr().err
