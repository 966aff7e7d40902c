"""What is said of data that were built with other settings than the config has."""

from pathlib import Path

import pytest

from trainer.built import other_settings
from trainer.entry import main


def test_only_what_the_config_states_otherwise_is_named(tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text(
        '[source]\ninputs = ["new.jsonl"]\n[pack]\nmax_seq_len = 99\n[mask]\npreset = "full"\n[train]\nlr = 1\n'
    )
    assert other_settings(config, [], tmp_path) is None  # no config.toml yet
    (tmp_path / "config.toml").write_text(
        '[source]\ninputs = ["a.jsonl"]\n[pack]\nmax_seq_len = 1024\nstrategy = "bfd"\n[mask]\npreset = "full"\n[train]\nlr = 2\n'
    )
    said = other_settings(config, [], tmp_path)
    assert said is not None
    assert said.startswith(
        f"note: {tmp_path} was built with other settings: [pack] max_seq_len = 99, built with 1024. "
    )
    assert other_settings(config, ["pack.max_seq_len=1024"], tmp_path) is None
    said = other_settings(config, ["mask.preset=none"], tmp_path)
    assert said is not None
    assert "[mask] preset = 'none', built with 'full'" in said


def test_training_says_that_it_takes_what_was_built(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = run / "config.toml"
    command = [str(config), "--run-dir", str(run), "--dry-run"]
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    assert main([*command, "--set", "pack.max_seq_len=99"]) == 0
    assert f"note: {run} was built with other settings: [pack] max_seq_len = 99" in capsys.readouterr().err
