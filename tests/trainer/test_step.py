"""The arithmetic of a step on one rank; test_exactness.py says what it adds up to."""

import torch

from schemas.models import Model
from schemas.training import Train
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder, initialise
from trainer.step import Precision, accumulate, choose_precision
from trainer.world import World

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=CPU)


def test_the_arithmetic_is_what_the_config_says() -> None:
    assert choose_precision(Train(dtype="float32"), ALONE).dtype == torch.float32
    assert choose_precision(Train(dtype="bfloat16"), ALONE).dtype == torch.bfloat16
    has_native = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    assert (choose_precision(Train(dtype="auto"), ALONE).dtype == torch.bfloat16) == has_native


def test_losses_come_back_unscaled_and_without_what_z_loss_adds_to_the_gradient() -> None:
    model = Decoder(new_architecture(Model(hidden_size=16, num_attention_heads=2), vocab_size=30))
    initialise(model, seed=0)
    batch = Batch(
        input_ids_T=torch.tensor([3, 1, 4, 1]),
        positions_T=torch.arange(4),
        lengths=(4,),
        rows_S=torch.tensor([0, 1]),
        targets_S=torch.tensor([1, 4]),
        weights_S=torch.tensor([1.0, 0.5]),
    )
    found = []
    for z_loss in (0.0, 0.1):
        model.zero_grad()
        precision = Precision(device=CPU, dtype=torch.float32)
        losses = accumulate(model, [[0], [1]], lambda _: batch, scale=0.25, precision=precision, z_loss=z_loss)
        assert model.embed_tokens.weight.grad is not None
        found.append((torch.stack(losses), model.embed_tokens.weight.grad.clone()))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][0].dtype == torch.float64
    wanted = 1.5 * torch.tensor(30.0).log()  # an untrained model finds all of 30 tokens about as likely
    assert (found[0][0] - wanted).abs().max() < 0.1
    # d/dx of z lse², with lse near log 30, next to that of the cross-entropy
    assert not torch.allclose(found[0][1], found[1][1], rtol=0.05)
