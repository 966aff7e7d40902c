"""Measure training on one GPU, in one command: what the device can do at best, and how much of it a training step does.

    python -m bench.gpu [--only matmul attention loss full lora peer] [--minutes 9] [--out FILE.json] [--smoke]

matmul     bfloat16 products at the shapes of TinyLlama 1.1B, on random data: the ceiling that shares are taken of
attention  kernels for packed documents (varlen, also without the empty documents that training adds, its cuDNN branch,
           FlexAttention, one SDPA call per document), at document lengths around 350 and of the whole pack: forward and
           backward, checked against float32 SDPA, gradients too
loss       supervised rows in chunks against full logits
full       TinyLlama 1.1B, all weights learning, packs of 2,048 and 4,096, 16k to 64k tokens a micro-batch
lora       Llama 3.1 8B with random bfloat16 weights and adapters of rank 16 on every matrix of its blocks
peer       the same steps of TinyLlama by transformers with a plain loop, by each kind of attention that it offers
           (bench.train compares with TRL's SFTTrainer, on a GPU as on a CPU, where its packages are installed)

Tokens are random and documents are as long as conversations are; no data, no network and no file of a model is needed,
and of packages only torch, numpy and msgspec (transformers for `peer`). --smoke does all of it at toy sizes on a CPU, to
see that it runs. Useful work is what trainer.report.flops counts: recomputation is not. Each part has a share of the minutes,
which passes on what it does not need; what does not fit any more is named and left out.
"""

import argparse
import contextlib
import json
import math
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from schemas.models import Lora, Model, RopeScaling
from schemas.training import Train
from trainer.compiled import compile_blocks, padded
from trainer.loss import cross_entropy
from trainer.model.architecture import new_architecture
from trainer.model.attention import Documents, attend
from trainer.model.decoder import Batch, Decoder
from trainer.model.lora import adapt
from trainer.optim import make_adamw
from trainer.report.flops import count_work
from trainer.trainable import select

TINYLLAMA = Model(
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=22,
    num_attention_heads=32,
    num_key_value_heads=4,
    max_position_embeddings=4096,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
LLAMA_8B = Model(
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    ),
    max_position_embeddings=131_072,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
TOY = Model(
    hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False
)
VOCABULARY = {"full": 32_000, "lora": 128_256, "toy": 512}
MEAN_DOCUMENT = 350
CUDNN, FLEX = "varlen, cuDNN", "FlexAttention"
SUPERVISED = 0.5
"""Share of tokens that are trained."""
COMPILING, PLAIN = 50.0, 15.0
"""Seconds that a measurement may need, with compiled code and without; it is not begun where less is left."""


class Bench:
    """Where it runs, at which sizes, and what was found."""

    def __init__(self, *, smoke: bool) -> None:
        self.smoke = smoke
        self.until = math.inf
        """When the part that runs should have ended, by time.monotonic."""
        self.device = torch.device("cuda" if torch.cuda.is_available() and not smoke else "cpu")
        self.dtype = torch.bfloat16
        self.found: dict[str, Any] = {}
        self.ceiling = 0.0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def has_time(self, part: str, key: str, *, seconds: float) -> bool:
        """Tell whether a measurement can still be begun; if not, say so."""
        if time.monotonic() + seconds <= self.until:
            return True
        self.say(f"{key}: left out, no time")
        self.found.setdefault(part, {})[key] = {"error": "no time"}
        return False

    def timed(self, do: Callable[[], object], *, repeat: int = 10) -> float:
        """Return the median seconds of `do`, after two runs that are not counted."""
        repeat = 2 if self.smoke else repeat
        seconds = []
        for i in range(repeat + 2):
            self.wait()
            before = time.perf_counter()
            do()
            self.wait()
            if i >= 2:
                seconds.append(time.perf_counter() - before)
        return statistics.median(seconds)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=dtype or self.dtype)


def document_lengths(n_tokens: int, *, mean: int, longest: int) -> list[int]:
    """Return lengths that sum to `n_tokens`: log-normal around `mean`, as those of conversations are."""
    generator = np.random.default_rng(0)
    lengths: list[int] = []
    left = n_tokens
    while left:
        drawn = int(generator.lognormal(math.log(mean) - 0.32, 0.8)) if mean < longest else longest
        lengths.append(min(max(drawn, 8), longest, left))
        left -= lengths[-1]
    return lengths


def matmul(bench: Bench) -> None:
    n = 256 if bench.smoke else 16_384
    hidden, wide = (64, 128) if bench.smoke else (2048, 5632)
    best: dict[str, float] = {}
    for name, (rows, inner, columns) in {
        "gate and up": (n, hidden, 2 * wide),
        "down": (n, wide, hidden),
        "q, k and v": (n, hidden, hidden * 5 // 4),
        "weight gradient": (hidden, n, 2 * wide),
        "square": (hidden * 4, hidden * 4, hidden * 4),
    }.items():
        left, right = bench.random(rows, inner), bench.random(inner, columns)
        seconds = bench.timed(lambda left=left, right=right: left @ right, repeat=30)
        best[name] = 2 * rows * inner * columns / seconds / 1e12
        bench.say(f"matmul {name:<16} {rows} x {inner} x {columns}: {best[name]:8.1f} TFLOP/s")
    bench.ceiling = max(best.values()) * 1e12
    bench.found["matmul"] = best


def attention_backends(bench: Bench) -> None:
    heads, kv, width = (4, 2, 16) if bench.smoke else (32, 4, 64)
    for n_tokens, mean in ((512, 64), (512, 512)) if bench.smoke else ((32_768, 350), (32_768, 4096)):
        lengths = document_lengths(n_tokens, mean=mean, longest=512 if bench.smoke else 4096)
        shapes = ((n_tokens, heads, width), (n_tokens, kv, width), (n_tokens, kv, width))
        leaves = [bench.random(*shape).requires_grad_() for shape in shapes]
        gradient = bench.random(n_tokens, heads, width)
        wide = [x.detach().float().requires_grad_() for x in leaves]
        expected = torch.cat([each(*qkv) for qkv in split(wide, lengths)])
        expected.backward(gradient.float())
        pairs = sum(length * (length + 1) // 2 for length in lengths)
        for name, kernel in kernels(bench, lengths).items():
            key = f"{name}, documents of {mean}"
            if not bench.has_time("attention", key, seconds=COMPILING if name == FLEX else PLAIN):
                continue
            try:
                with cudnn_branch(is_wanted=name == CUDNN):
                    for x in leaves:
                        x.grad = None
                    out = kernel(*leaves)
                    out.backward(gradient)
                    errors = [relative(out, expected)]
                    errors += [relative(a.grad, b.grad) for a, b in zip(leaves, wide, strict=True)]
                    seconds = bench.timed(forward_and_back(kernel, leaves, gradient))
            except Exception as error:  # noqa: BLE001 - a kernel that is not there is a result
                bench.found.setdefault("attention", {})[key] = {"error": str(error).splitlines()[0][:200]}
                bench.say(f"attention {key}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
                continue
            speed = 12 * heads * width * pairs / seconds / 1e12
            bench.found.setdefault("attention", {})[key] = {"ms": seconds * 1e3, "tflops": speed, "errors": errors}
            shown = ", ".join(f"{e:.1e}" for e in errors)
            bench.say(
                f"attention {key:<44} {seconds * 1e3:8.2f} ms {speed:7.1f} TFLOP/s; error of out, dq, dk, dv {shown}"
            )


def forward_and_back(kernel: Callable[..., Tensor], leaves: list[Tensor], gradient: Tensor) -> Callable[[], None]:
    return lambda: kernel(*leaves).backward(gradient)


def kernels(bench: Bench, lengths: list[int]) -> dict[str, Callable[..., Tensor]]:
    documents = Documents.of(lengths, bench.device)
    found: dict[str, Callable[..., Tensor]] = {
        "as trained": lambda q, k, v: attend(q, k, v, documents, window=None),
        "SDPA per document": lambda q, k, v: torch.cat([each(*qkv) for qkv in split((q, k, v), lengths)]),
    }
    if bench.device.type == "cuda":
        starts = torch.tensor([0, *lengths], device=bench.device).cumsum(0).to(torch.int32)
        exact = Documents(tuple(lengths), max(lengths), starts)
        found |= {
            "varlen, no empty documents": lambda q, k, v: attend(q, k, v, exact, window=None),
            CUDNN: found["as trained"],
            FLEX: flex(lengths, bench.device),
        }
    return found


@contextlib.contextmanager
def cudnn_branch(*, is_wanted: bool) -> Iterator[None]:
    """Let torch's variable-length attention take its cuDNN branch, forward and backward, which it chooses by a function."""
    from torch.nn.attention import varlen

    before = getattr(varlen, "_should_use_cudnn", None)
    if is_wanted and before is None:
        raise NotImplementedError("this torch has no cuDNN branch of varlen_attn")
    if is_wanted:
        varlen._should_use_cudnn = lambda *_: True
    try:
        yield
    finally:
        if before is not None:
            varlen._should_use_cudnn = before


def flex(lengths: list[int], device: torch.device) -> Callable[..., Tensor]:
    """Return FlexAttention with a mask of documents, compiled; making the mask is not timed, as a step makes it once."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    document = torch.repeat_interleave(torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device))
    made: list[Any] = []

    def seen(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (document[q] == document[k]) & (q >= k)

    compiled = torch.compile(flex_attention, dynamic=False)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not made:  # not before it is its turn: if it fails, it fails alone
            made.append(create_block_mask(seen, None, None, len(document), len(document), device=device, _compile=True))
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        out: Tensor = compiled(q, k, v, block_mask=made[0], enable_gqa=q.shape[1] != k.shape[1])
        return out[0].transpose(0, 1)

    return run


def split(tensors: Any, lengths: list[int]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(x, lengths) for x in tensors), strict=True)


def each(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    return out[0].transpose(0, 1)


def relative(a: Tensor | None, b: Tensor | None) -> float:
    assert a is not None
    assert b is not None
    return float((a.detach().float() - b.detach().float()).norm() / b.detach().float().norm())


def loss(bench: Bench) -> None:
    width, vocabulary = (64, VOCABULARY["toy"]) if bench.smoke else (2048, VOCABULARY["full"])
    for n_rows in (64,) if bench.smoke else (1024, 2048, 4096, 16_384):
        hidden, head = bench.random(n_rows, width).requires_grad_(), bench.random(vocabulary, width).requires_grad_()
        targets = torch.randint(0, vocabulary, (n_rows,), device=bench.device)
        weights = torch.ones(n_rows, device=bench.device)

        def chunked(h: Tensor = hidden, w: Tensor = head, t: Tensor = targets, weight: Tensor = weights) -> None:
            cross_entropy(h, w, t, weight).objective.backward()

        def full(h: Tensor = hidden, w: Tensor = head, t: Tensor = targets) -> None:
            functional.cross_entropy((h @ w.T).float(), t, reduction="sum").backward()

        ms = {name: bench.timed(do) * 1e3 for name, do in {"chunked": chunked, "full logits": full}.items()}
        bench.found.setdefault("loss", {})[n_rows] = ms
        bench.say(f"loss of {n_rows} rows: " + ", ".join(f"{name} {value:.2f} ms" for name, value in ms.items()))


def random_batch(n_tokens: int, pack: int, vocabulary: int) -> Batch:
    lengths = [
        length
        for start in range(0, n_tokens, pack)
        for length in document_lengths(min(pack, n_tokens - start), mean=min(MEAN_DOCUMENT, pack), longest=pack)
    ]
    generator = torch.Generator().manual_seed(n_tokens)
    starts = torch.tensor([0, *lengths]).cumsum(0)
    is_last = torch.zeros(n_tokens, dtype=torch.bool)
    is_last[starts[1:] - 1] = True
    is_trained = (torch.rand(n_tokens, generator=generator) < SUPERVISED) & ~is_last
    rows = is_trained.nonzero()[:, 0]
    ids = torch.randint(0, vocabulary, (n_tokens,), generator=generator)
    return Batch(
        input_ids_T=ids,
        positions_T=torch.cat([torch.arange(n) for n in lengths]),
        lengths=tuple(lengths),
        rows_S=rows,
        targets_S=ids[rows + 1],
        weights_S=torch.ones(len(rows)),
    )


def train(bench: Bench, name: str, sizes: Model, *, lora: Lora, pack: int, n_tokens: int, **switches: bool) -> None:
    """Time whole steps: forward, backward, clipping and the update, one micro-batch each."""
    vocabulary = VOCABULARY["toy" if bench.smoke else name]
    switched = ", ".join(word for word, is_on in switches.items() if is_on) or "plain"
    key = f"{name}: packs of {pack}, {n_tokens} tokens, {switched}"
    if not bench.has_time(name, key, seconds=COMPILING if switches.get("compile") else PLAIN):
        return
    try:
        steps(bench, name, key, sizes, lora=lora, pack=pack, n_tokens=n_tokens, vocabulary=vocabulary, **switches)
    except torch.OutOfMemoryError:
        bench.say(f"{key}: out of memory")
        bench.found.setdefault(name, {})[key] = {"error": "out of memory"}


def steps(
    bench: Bench,
    name: str,
    key: str,
    sizes: Model,
    *,
    lora: Lora,
    pack: int,
    n_tokens: int,
    vocabulary: int,
    **switches: bool,
) -> None:
    if switches.get("compile"):
        # a run has code for its own size; without this the next size would be measured in code that fits any
        torch.compiler.reset()
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with torch.device(bench.device):
        model = Decoder(new_architecture(sizes, vocab_size=vocabulary))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02)
                if lora.rank:  # as trainer.frozen keeps matrices that do not learn
                    parameter.data = parameter.to(bench.dtype)
    adapt(model, lora, seed=0)
    select(model, None)
    work = count_work(model)
    model.gradient_checkpointing = switches.get("gradient_checkpointing", False)
    if switches.get("compile", False):
        compile_blocks(model)
    optimizer = make_adamw(model, Train(lr=1e-5))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    batch = padded(random_batch(n_tokens, pack, vocabulary), full=n_tokens).to(bench.device)

    def step() -> None:
        with torch.autocast(bench.device.type, dtype=bench.dtype):
            objective = model(batch).objective / len(batch.rows_S)
        objective.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    before = time.perf_counter()
    seconds = bench.timed(step, repeat=8)
    pairs = sum(length * (length + 1) // 2 for length in batch.lengths)
    useful = work.of(n_tokens=n_tokens, n_rows=len(batch.rows_S), n_pairs=pairs)
    memory = torch.cuda.max_memory_allocated() if bench.device.type == "cuda" else 0
    share = useful / seconds / bench.ceiling if bench.ceiling else float("nan")
    bench.found.setdefault(name, {})[key] = {
        "tokens_per_s": n_tokens / seconds,
        "useful_tflops": useful / seconds / 1e12,
        "share_of_matmul": share,
        "memory_gib": memory / 2**30,
        "setup_s": time.perf_counter() - before - 10 * seconds,
    }
    bench.say(
        f"{key:<64} {n_tokens / seconds:10,.0f} tok/s {useful / seconds / 1e12:7.1f} TFLOP/s {share:6.1%} of the "
        f"measured ceiling, {memory / 2**30:6.1f} GiB"
    )


def full(bench: Bench) -> None:
    """Measure what matters most first: the time may end before the list."""
    sizes, compiled = (TOY, False) if bench.smoke else (TINYLLAMA, True)
    cases = ((2048, 16_384), (2048, 32_768), (4096, 32_768), (2048, 65_536), (4096, 65_536), (4096, 16_384))
    for pack, n_tokens in ((128, 256),) if bench.smoke else cases:
        train(bench, "full", sizes, lora=Lora(), pack=pack, n_tokens=n_tokens, compile=compiled)
    pack, n_tokens = (128, 256) if bench.smoke else (2048, 16_384)
    train(bench, "full", sizes, lora=Lora(), pack=pack, n_tokens=n_tokens)
    train(
        bench, "full", sizes, lora=Lora(), pack=pack, n_tokens=n_tokens, compile=compiled, gradient_checkpointing=True
    )


def lora(bench: Bench) -> None:
    sizes, pack, compiled = (TOY, 128, False) if bench.smoke else (LLAMA_8B, 2048, True)
    cases = ((8192, False), (16_384, False), (16_384, True), (32_768, True), (8192, True))
    for n_tokens, checkpointing in ((256, False), (256, True)) if bench.smoke else cases:
        train(
            bench,
            "lora",
            sizes,
            lora=Lora(rank=16),
            pack=pack,
            n_tokens=n_tokens,
            compile=compiled,
            gradient_checkpointing=checkpointing,
        )


def peer(bench: Bench) -> None:
    """Take steps of the same model with transformers, padding-free, by the attention that it offers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes, vocabulary = (TOY, VOCABULARY["toy"]) if bench.smoke else (TINYLLAMA, VOCABULARY["full"])
    a = new_architecture(sizes, vocab_size=vocabulary)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=a.hidden_size,
        intermediate_size=a.intermediate_size,
        num_hidden_layers=a.num_hidden_layers,
        num_attention_heads=a.num_attention_heads,
        num_key_value_heads=a.num_key_value_heads,
        max_position_embeddings=a.max_position_embeddings,
        tie_word_embeddings=False,
    )
    n_tokens, pack = (256, 128) if bench.smoke else (16_384, 2048)
    batch = random_batch(n_tokens, pack, vocabulary).to(bench.device)
    labels = torch.full((n_tokens,), -100, device=bench.device)
    labels[batch.rows_S + 1] = batch.targets_S
    for kind in ("sdpa", "flash_attention_2", "flex_attention"):
        if not bench.has_time("peer", kind, seconds=COMPILING):
            continue
        try:
            with torch.device(bench.device):
                config._attn_implementation = kind
                model = LlamaForCausalLM(config).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

            def step(model: Any = model, optimizer: Any = optimizer) -> None:
                with torch.autocast(bench.device.type, dtype=bench.dtype):
                    out = model(
                        input_ids=batch.input_ids_T[None], position_ids=batch.positions_T[None], labels=labels[None]
                    )
                out.loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

            seconds = bench.timed(step, repeat=5)
        except Exception as error:  # noqa: BLE001 - what is not installed is a result
            bench.found.setdefault("peer", {})[kind] = {"error": str(error).splitlines()[0][:200]}
            bench.say(f"transformers, {kind}: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
            continue
        bench.found.setdefault("peer", {})[kind] = {"tokens_per_s": n_tokens / seconds}
        bench.say(f"transformers, {kind}: packs of {pack}, {n_tokens} tokens: {n_tokens / seconds:10,.0f} tok/s")
        del model, optimizer


PARTS: dict[str, Callable[[Bench], None]] = {
    "matmul": matmul,
    "attention": attention_backends,
    "loss": loss,
    "full": full,
    "lora": lora,
    "peer": peer,
}
SHARES = {"matmul": 1, "attention": 4, "loss": 1, "full": 8, "lora": 6, "peer": 3}
"""Of the minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="after them nothing new is begun (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write what was found as JSON, after each part")
    parser.add_argument("--smoke", action="store_true", help="toy sizes on a CPU: only shows that it runs")
    options = parser.parse_args()
    if not options.smoke and not torch.cuda.is_available():
        parser.error("no GPU here; --smoke runs toy sizes on the CPU")
    bench = Bench(smoke=options.smoke)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "CPU"
    bench.found |= {"date": datetime.now(UTC).date().isoformat(), "device": name, "torch": torch.__version__}
    bench.say(f"{name}, torch {torch.__version__}, {bench.found['date']}")
    ends = time.monotonic() + 60 * options.minutes
    for i, part in enumerate(options.only):
        share = SHARES[part] / sum(SHARES[other] for other in options.only[i:])
        bench.until = time.monotonic() + share * (ends - time.monotonic())
        try:
            PARTS[part](bench)
        except Exception:  # noqa: BLE001 - the parts after it are worth having
            bench.say(f"{part} failed:\n{traceback.format_exc()}")
            bench.found.setdefault("failed", {})[part] = traceback.format_exc()
        if options.out:
            options.out.write_text(json.dumps(bench.found, indent=1) + "\n")


if __name__ == "__main__":
    main()
