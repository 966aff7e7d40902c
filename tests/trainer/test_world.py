"""Where ranks may run."""

import pytest

from trainer.errors import Elsewhere, RestartsRefused, TooManyRanks
from trainer.meeting import store_of_this_start
from trainer.world import check_gpus


def test_each_rank_needs_a_gpu_of_its_own_and_the_first_one_says_so() -> None:
    for rank in range(4):
        check_gpus(4, local_rank=rank, local_size=4)
    with pytest.raises(TooManyRanks, match=r"4 ranks on a machine with 2 GPUs, .* give --gpus 2 ") as caught:
        check_gpus(2, local_rank=0, local_size=4)
    assert caught.value.exit_code == 2
    with pytest.raises(Elsewhere) as silent:
        check_gpus(2, local_rank=3, local_size=4)
    assert silent.value.exit_code == 2
    with pytest.raises(TooManyRanks, match=r"2 ranks on a machine with 1 GPU, "):
        check_gpus(1, local_rank=0, local_size=2)


def test_restarts_on_several_machines_need_a_new_store_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_of_this_start() is None
    torchrun = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_MAX_RESTARTS": "3", "LOCAL_RANK": "0"}
    for name, value in (torchrun | {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        RestartsRefused, match="set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment of torchrun"
    ):
        store_of_this_start()
    monkeypatch.setenv("LOCAL_RANK", "5")
    with pytest.raises(Elsewhere):
        store_of_this_start()
    for name, value in {"TORCHELASTIC_USE_AGENT_STORE": "False", "TORCHELASTIC_MAX_RESTARTS": "0"}.items():
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert store_of_this_start() is None
