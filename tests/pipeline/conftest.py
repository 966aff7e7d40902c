"""A model of random weights in a run directory, as if it had been trained: what answers and conversations need."""

from pathlib import Path

import pytest

from tests.corpus import ROOT

ROOM = 200
"""Tokens of the longest conversation of the model."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run whose model ends some answers and not others."""
    import torch

    from schemas.models import Model
    from trainer.data.assets import NEEDED, GenerationConfig
    from trainer.export import export
    from trainer.model.architecture import new_architecture
    from trainer.model.decoder import Decoder, initialise

    run = tmp_path_factory.mktemp("trained") / "run"
    run.mkdir()
    (run / "config.toml").write_text("seed = 5\n[generation]\nmax_new_tokens = 24\ntemperature = 1.0\ntop_k = 8\n")
    assets = {name: (ROOT / "data" / "tokenizer" / name).read_bytes() for name in NEEDED if name != NEEDED[-1]}
    assets[NEEDED[-1]] = b'{"eos_token_id": [2], "pad_token_id": 0}'
    sizes = Model(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, max_position_embeddings=ROOM)
    model = Decoder(new_architecture(sizes, vocab_size=2048))
    initialise(model, seed=0)
    with torch.no_grad():
        model.embed_tokens.weight.mul_(20)
        model.embed_tokens.weight[2].mul_(6)  # <|im_end|>: drawn at times, and never the likeliest
    export(run / "train" / "export", model, assets=assets, generation=GenerationConfig(eos_token_id=2), dtype="float32")
    return run
