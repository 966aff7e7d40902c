"""Where ranks may run."""

import pytest

from trainer.errors import Elsewhere, TooManyRanks
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
