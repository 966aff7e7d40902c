"""Time answers of a model of random weights, written one by one and side by side: new tokens per second.

    python -m bench.answers [--hidden 512] [--layers 6] [--vocabulary 32000] [--tokens 64] [--rounds 3] [--dtype float32]

"cat" is the loop that most tutorials have: one prompt at a time, keys and values joined anew at every step. All take turns,
prompt by prompt, and what is said is the median over rounds. In float32 all must have written the same.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from schemas.generation import Generation
from schemas.models import Model
from trainer.answers.generate import answers
from trainer.model.architecture import new_architecture
from trainer.model.attention import attend_cached
from trainer.model.decoder import Decoder, initialise

BATCHES = (1, 4, 8, 16)


class Joined:
    """Keys and values of one document, joined anew for each token."""

    def __init__(self, n_layers: int) -> None:
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * n_layers

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, _: Sequence[int], *, window: int | None) -> Tensor:
        before = self.layers[layer]
        k, v = (k, v) if before is None else (torch.cat((before[0], k)), torch.cat((before[1], v)))
        self.layers[layer] = k, v
        return attend_cached(q, k, v, window=window)


@torch.no_grad()
def one_by_one(model: Decoder, prompts: list[list[int]], n_new: int) -> list[tuple[int, ...]]:
    found = []
    for prompt in prompts:
        cache: Any = Joined(model.architecture.num_hidden_layers)
        new, at, answer = list(prompt), 0, []
        while len(answer) < n_new:
            positions = torch.arange(at, at + len(new))
            last = model.hidden(torch.tensor(new), positions, (len(new),), cache)[-1]
            at += len(new)
            new = [int(functional.linear(last, model.head_VC).float().argmax())]
            answer += new
        found.append(tuple(answer))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("hidden", 512), ("layers", 6), ("vocabulary", 32_000), ("tokens", 64), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    sizes = Model(
        hidden_size=options.hidden,
        num_attention_heads=options.hidden // 64 or 1,
        num_hidden_layers=options.layers,
        max_position_embeddings=4096,
    )
    model = Decoder(new_architecture(sizes, vocab_size=options.vocabulary)).eval()
    initialise(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(16, 128, (max(BATCHES),), generator=generator).tolist()
    prompts = [torch.randint(0, options.vocabulary, (n,), generator=generator).tolist() for n in lengths]
    speeds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for batch in BATCHES:
            given = prompts[:batch]
            settings = Generation(max_new_tokens=options.tokens, batch=batch)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.dtype == "bfloat16"):
                start = time.perf_counter()
                before = one_by_one(model, given[:1], options.tokens)
                middle = time.perf_counter()
                now = answers(model, given, settings=settings, stop_ids=(), seed=0)
                end = time.perf_counter()
            speeds.setdefault("cat", []).append(options.tokens / (middle - start))
            speeds.setdefault(f"{batch} side by side", []).append(batch * options.tokens / (end - middle))
            assert options.dtype != "float32" or now[0].ids == before[0]
    print(
        f"{options.layers} x {options.hidden}, {options.dtype}, {torch.get_num_threads()} thread(s), new tokens per second:"
    )
    for name, found in speeds.items():
        print(f"  {name:16s} {statistics.median(found):8,.0f}")


if __name__ == "__main__":
    main()
