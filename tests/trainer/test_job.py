"""The config as the trainer reads it, and the command that goes on with it."""

import sys
from pathlib import Path

import pytest

from schemas.settings import ConfigError
from trainer.job import read_job


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CHATLOOM_RESUME", raising=False)
    path = tmp_path / "my config.toml"
    path.write_text("[train]\nsteps = 3\n")
    return path


def test_the_command_to_go_on_works_without_an_active_environment(config: Path) -> None:
    job = read_job(config, run=Path("r"), overrides=["train.lr=1e-3"], world_size=1)
    assert job.resume == f"{sys.executable} -m trainer '{config}' --run-dir r --set train.lr=1e-3"


def test_under_torchrun_it_gives_the_ranks_time_to_save_and_a_port_of_their_own(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = f"env TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600 {sys.executable} -m torch.distributed.run"
    job = read_job(config, run=None, overrides=[], world_size=2)
    assert job.resume == f"{start} --standalone --nproc-per-node 2 -m trainer '{config}'"
    for name, value in {"LOCAL_WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "node-7"}.items():
        monkeypatch.setenv(name, value)
    job = read_job(config, run=None, overrides=[], world_size=16)
    meeting = "--rdzv-backend c10d --rdzv-endpoint node-7:29400"
    assert job.resume == f"{start} --nnodes 2 --nproc-per-node 8 {meeting} -m trainer '{config}'"


@pytest.mark.parametrize("name", ["float16", "half"])
def test_float16_is_refused_saying_why(name: str, config: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"dtype = '{name}': gradients below 6e-8 become 0 .* Write bfloat16, or auto"
    ):
        read_job(config, run=None, overrides=[f"train.dtype={name}"], world_size=1)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('run=""', "run = '': expected the path of a directory"),
        ('model.path="a\\u0000b"', "[model] path = 'a\\x00b': expected the path of a directory"),
        ('train.phases=[{name="a", run=""}]', "[[train.phases]] 'a', run = '': expected"),
        ("steps=3", "unknown key 'steps'; did you mean train.steps?"),
    ],
)
def test_what_is_no_path_and_what_is_in_no_section_are_refused(override: str, said: str, config: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_job(config, run=None, overrides=[override], world_size=1)
    assert said in str(caught.value)


def test_a_model_path_that_goes_round_is_no_defect(config: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert read_job(config, run=None, overrides=[f"model.path={tmp_path}/loop"], world_size=1).model.path is not None


def test_what_was_typed_is_what_is_shown(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLOOM_RESUME", "chatloom train c.toml --gpus 2")
    assert read_job(config, run=None, overrides=[], world_size=2).resume == "chatloom train c.toml --gpus 2"


def test_the_run_is_named_after_the_config_as_the_builder_has_it(config: Path) -> None:
    assert read_job(config, run=None, overrides=[], world_size=1).run == Path("runs/my config")


def test_torchrun_reads_the_variable() -> None:
    from torch.distributed.launcher.api import LaunchConfig

    if "shutdown_timeout" not in LaunchConfig.__dataclass_fields__:
        pytest.skip("this torch always waits 30 s")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "600")
        assert LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=1).shutdown_timeout == 600
