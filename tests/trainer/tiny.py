"""Models and batches that are small enough to compute by hand, nearly."""

from typing import Any

import torch

from schemas.models import Model
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Batch, Decoder, initialise
from trainer.model.dropout import keys

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2")
VOCABULARY = 50


def tiny_model(family: str = "llama", *, seed: int = 0, vocab_size: int = VOCABULARY, **sizes: Any) -> Decoder:
    """A model of 2 blocks in which no weight is 0 or 1, so that each makes a difference."""
    given: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
    if family != "gpt2":
        given["num_key_value_heads"] = 2
    model = Decoder(new_architecture(Model(model_type=family, **given | sizes), vocab_size=vocab_size))  # type: ignore[arg-type]
    initialise(model, seed=seed)
    shake(model, seed=seed)
    return model


def shake(model: Decoder, *, seed: int = 0, size: float = 0.1) -> None:
    """Move everything that learns, and nothing else."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * size)


def tiny_batch(*lengths: int, seed: int = 0, first_pack: int = 0, step: int | None = None) -> Batch:
    """Documents of random tokens, each a pack, of which all but the first three tokens are trained, with weights.

    The pack `first_pack` + i has the same tokens whichever packs are beside it. With a step there are keys for dropout.
    """
    packs = range(first_pack, first_pack + len(lengths))
    generators = [torch.Generator().manual_seed(1000 * seed + pack) for pack in packs]
    ids = [torch.randint(0, VOCABULARY, (n,), generator=g) for n, g in zip(lengths, generators, strict=True)]
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
    rows = torch.cat(
        [torch.arange(start + 2, start + max(2, n - 1)) for start, n in zip(starts, lengths, strict=False)]
    )
    ids_T = torch.cat(ids)
    weights = [torch.rand(max(0, n - 3), generator=g) for n, g in zip(lengths, generators, strict=True)]
    found = None if step is None else torch.from_numpy(keys(seed=5, step=step, packs=packs, sizes=lengths))
    return Batch(
        input_ids_T=ids_T,
        positions_T=torch.cat([torch.arange(n) for n in lengths]),
        lengths=lengths,
        rows_S=rows,
        targets_S=ids_T[rows + 1],
        weights_S=torch.cat(weights),
        dropout_keys_T=found,
    )
