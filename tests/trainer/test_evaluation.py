"""Held-out loss: over all trained tokens, on any number of ranks, and by source."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from schemas.manifest import FileRecord
from schemas.models import Model
from trainer.data.packs import Packs, read_manifest, split_files
from trainer.data.stream import deal
from trainer.errors import DataError
from trainer.evaluation import (
    OTHER,
    SOURCES,
    Evaluation,
    Part,
    evaluate,
    merged,
    parts_of,
    source_of,
    tags_of_kind,
)
from trainer.model.architecture import new_architecture
from trainer.model.decoder import Decoder, initialise
from trainer.step import Precision
from trainer.world import World

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=CPU)
DOUBLE = Precision(device=CPU, dtype=torch.float64)
VOCABULARY = 400


def small_model() -> Decoder:
    sizes = Model(
        hidden_size=16, num_attention_heads=4, num_hidden_layers=1, tie_word_embeddings=False, initializer_range=0.5
    )
    model = Decoder(new_architecture(sizes, vocab_size=VOCABULARY))
    initialise(model, seed=0)
    return model.double()


def row(ids: list[str], lengths: list[int], trained: list[int], weight: float) -> dict[str, object]:
    """Return a pack whose conversations train their last `trained` tokens."""
    input_ids = [(7 * i + len(ids[0])) % VOCABULARY for i in range(sum(lengths))]
    labels: list[int] = []
    for length, n in zip(lengths, trained, strict=True):
        labels += [-100] * (length - n) + input_ids[len(labels) + length - n : len(labels) + length]
    return {
        "ids": ids,
        "split": "validation",
        "input_ids": input_ids,
        "labels": labels,
        "seq_lengths": lengths,
        "loss_weights": [weight if label != -100 else 0.0 for label in labels],
        "n_supervised": sum(trained),
        "weight_sum": weight * sum(trained),
    }


ROWS = [
    row(["a/b.jsonl:1", "c:2.jsonl:7#2"], [5, 6], [3, 0], 1.0),
    row(["a/b.jsonl:2"], [9], [8], 0.5),
    row(["c:2.jsonl:7#1", "a/b.jsonl:4", "d:1"], [4, 3, 5], [2, 1, 0], 2.0),
]


@pytest.fixture
def packs(tmp_path: Path, write_shard: Callable[..., FileRecord]) -> Packs:
    return Packs(tmp_path, [write_shard(tmp_path, "kept/validation/00000.arrow", ROWS)])


def expected(model: Decoder, packs: Packs) -> dict[str, list[float]]:
    """Return (weighted loss, weight, tokens) of each source by full logits, a conversation at a time."""
    sums: dict[str, list[float]] = {}
    for pack in range(len(packs)):
        ids, labels = (torch.tensor(part).long() for part in packs.tokens(pack))
        weight = packs.weights[pack] / packs.n_supervised[pack]
        start = 0
        for name, length in zip(packs.ids([pack]), packs.document_lengths(pack).tolist(), strict=True):
            own, wanted = ids[start : start + length], labels[start : start + length]
            losses = functional.cross_entropy(model.logits(own, (length,))[:-1], wanted[1:], reduction="none")
            n = int((wanted != -100).sum())
            source = name[: name.rindex(":")]
            found = sums.setdefault(source, [0.0, 0.0, 0])
            for i, value in enumerate((float(weight * losses.sum().detach()), weight * n, n)):
                found[i] += value
            start += length
    return sums


TAGS = [
    [["domain:code", "domain:math", "lang:en"], ["domain:math"]],
    [[]],
    [["lang:en"], ["domain:math", "domain:math"], ["domain:silent"]],
]


@pytest.fixture
def tagged(tmp_path: Path, write_shard: Callable[..., FileRecord]) -> Packs:
    """The same packs, with tags, in two files."""
    rows = [{"tags": tags} | pack for tags, pack in zip(TAGS, ROWS, strict=True)]
    files = [
        write_shard(tmp_path, f"kept/validation/0000{i}.arrow", part) for i, part in enumerate((rows[:2], rows[2:]))
    ]
    return Packs(tmp_path, files)


def test_the_loss_of_a_tag_is_that_of_its_conversations(tagged: Packs) -> None:
    model = small_model()
    found = evaluate(model, tagged, ALONE, micro_batch=2, precision=DOUBLE, kind="domain")
    plain = evaluate(model, tagged, ALONE, micro_batch=2, precision=DOUBLE)
    assert found is not None
    assert plain is not None
    assert (found.by_source, plain.by_tag, plain.losses_by_tag()) == (plain.by_source, None, None)
    assert found.by_tag is not None
    # a/b.jsonl:1 counts for both of its tags, and c:2.jsonl:7#1 and a/b.jsonl:2 for none of the kind
    assert {tag: part.tokens for tag, part in found.by_tag.items()} == {"domain:math": 4, "domain:code": 3, OTHER: 10}
    assert list(found.by_tag)[-1] == OTHER
    everything = evaluate(model, tagged, ALONE, micro_batch=3, precision=DOUBLE, kind="*")
    assert everything is not None
    assert everything.by_tag is not None
    assert {tag: part.tokens for tag, part in everything.by_tag.items()} == {
        "lang:en": 5,
        "domain:math": 4,
        "domain:code": 3,
        OTHER: 8,
    }
    alone = parts_of(model, tagged, [1], micro_batch=1, precision=DOUBLE).by_source["a/b.jsonl"]
    assert everything.by_tag[OTHER].loss == pytest.approx(alone.loss, rel=1e-13)
    assert found.by_tag[OTHER].loss_sum == pytest.approx(
        found.total.loss_sum - found.by_tag["domain:math"].loss_sum, rel=1e-13
    )
    assert found.losses_by_tag() == {tag: part.loss for tag, part in found.by_tag.items()}


def test_any_number_of_ranks_finds_the_same_by_tag(tagged: Packs) -> None:
    model = small_model()
    alone = evaluate(model, tagged, ALONE, micro_batch=1, precision=DOUBLE, kind="lang")
    hands = deal(range(len(tagged)), tagged.n_tokens * 1.0, 2)
    found = merged(
        [parts_of(model, tagged, hand, micro_batch=1, precision=DOUBLE, kind="lang") for hand in hands], "lang"
    )
    assert found is not None
    assert alone is not None
    assert found.losses_by_tag() == pytest.approx(alone.losses_by_tag(), rel=1e-15)


def test_packs_without_tags_are_all_other(packs: Packs) -> None:
    found = evaluate(small_model(), packs, ALONE, micro_batch=2, precision=DOUBLE, kind="domain")
    assert found is not None
    assert found.losses_by_tag() == {OTHER: found.loss}


def test_a_changed_tag_is_no_tag(tagged: Packs, tmp_path: Path) -> None:
    path = tmp_path / "kept/validation/00000.arrow"
    data = path.read_bytes()
    assert data.count(b"domain:code") == 1
    path.write_bytes(data.replace(b"domain:code", b"domain:node"))
    with pytest.raises(DataError, match="its tags are not to be trusted"):
        evaluate(small_model(), tagged, ALONE, micro_batch=2, precision=DOUBLE, kind="domain")
    # what is measured without them is as sound as before
    assert evaluate(small_model(), tagged, ALONE, micro_batch=2, precision=DOUBLE) is not None


def test_a_kind_is_what_stands_before_the_first_colon() -> None:
    tags = ["domain:code", "domain:a:b", "domainx:c", "domain", "domain:code"]
    assert tags_of_kind(tags, "domain") == ["domain:code", "domain:a:b"]
    assert tags_of_kind(tags, "*") == ["domain:code", "domain:a:b", "domainx:c", "domain"]
    assert tags_of_kind(tags, "lang") == [OTHER]


def test_the_loss_is_that_of_full_logits_in_all_and_by_source(packs: Packs) -> None:
    model = small_model()
    wanted = expected(model, packs)
    for micro in (1, 2, 3):
        found = evaluate(model, packs, ALONE, micro_batch=micro, precision=DOUBLE)
        assert found is not None
        # d:1 trains nothing, so it has no loss
        assert list(found.by_source) == ["a/b.jsonl", "c:2.jsonl"]
        for name, part in found.by_source.items():
            assert part.loss_sum == pytest.approx(wanted[name][0], rel=1e-13)
            assert [part.weight, part.tokens] == wanted[name][1:]
        weight = 3 * 1.0 + 8 * 0.5 + 3 * 2.0
        assert found.total.weight == weight
        assert found.loss == pytest.approx(sum(sums[0] for sums in wanted.values()) / weight, rel=1e-13)
        assert found.perplexity == math.exp(found.loss)
        assert found.losses() == {name: part.loss for name, part in found.by_source.items()}


@pytest.mark.parametrize("size", [2, 3, 5])
def test_any_number_of_ranks_finds_the_same_and_a_rank_may_have_none(size: int, packs: Packs) -> None:
    model = small_model()
    alone = evaluate(model, packs, ALONE, micro_batch=1, precision=DOUBLE)
    hands = deal(range(len(packs)), packs.n_tokens * 1.0, size)
    assert sum(not hand for hand in hands) == max(0, size - len(packs))
    found = merged([parts_of(model, packs, hand, micro_batch=2, precision=DOUBLE) for hand in hands])
    assert found is not None
    assert alone is not None
    assert found.loss == pytest.approx(alone.loss, rel=1e-15)
    assert {n: (p.weight, p.tokens) for n, p in found.by_source.items()} == {
        n: (p.weight, p.tokens) for n, p in alone.by_source.items()
    }


def test_there_are_at_most_so_many_sources_and_the_rest_is_added_up(
    tmp_path: Path, write_shard: Callable[..., FileRecord]
) -> None:
    n = SOURCES + 3
    rows = [row([f"s{i:02}:1"], [4 + i], [1 + i], 0.1) for i in range(n - 1)] + [row([f"{OTHER}:1"], [80], [70], 0.1)]
    packs = Packs(tmp_path, [write_shard(tmp_path, "kept/validation/00000.arrow", rows)])
    found = evaluate(small_model(), packs, ALONE, micro_batch=4, precision=DOUBLE)
    assert found is not None
    names = list(found.by_source)
    assert names[0] == "s51"
    assert names[-1] == OTHER
    assert len(names) == SOURCES
    # one source has the name of the rest
    assert found.by_source[OTHER].tokens == 70 + 1 + 2 + 3
    total = Part()
    for part in found.by_source.values():
        total += part
    assert found.total == total
    assert found.loss == total.loss_sum / total.weight
    assert found.total.tokens == int(packs.n_supervised.sum())


def test_a_split_without_trained_tokens_has_no_loss(tmp_path: Path, write_shard: Callable[..., FileRecord]) -> None:
    model = small_model()
    assert evaluate(model, Packs(tmp_path, []), ALONE, micro_batch=1, precision=DOUBLE) is None
    masked = write_shard(tmp_path, "kept/validation/00000.arrow", [row(["a:1"], [4], [0], 1.0)])
    assert evaluate(model, Packs(tmp_path, [masked]), ALONE, micro_batch=1, precision=DOUBLE) is None


def test_a_loss_beyond_all_numbers_has_an_infinite_perplexity() -> None:
    assert Evaluation(by_source={"a": Part(loss_sum=1e4, weight=1.0, tokens=1)}).perplexity == math.inf
    assert Evaluation(by_source={"a": Part(loss_sum=math.nan, weight=1.0, tokens=1)}).perplexity == math.inf


def test_the_source_is_what_stands_before_the_last_colon() -> None:
    assert [source_of(name) for name in ("a.jsonl:3", "a.jsonl:3#12", "C:/x:9", "odd")] == [
        "a.jsonl",
        "a.jsonl",
        "C:/x",
        "odd",
    ]


def test_the_packs_of_a_run_are_measured(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    run = write_run(tmp_path / "run", weighted=True)
    packs = Packs(run / "pack", split_files(read_manifest(run), "validation"))
    found = evaluate(small_model(), packs, ALONE, micro_batch=2, precision=DOUBLE)
    assert found is not None
    assert {name: part.tokens for name, part in found.by_source.items()} == {
        "validation.jsonl": int(packs.n_supervised.sum())
    }
    assert found.total.weight == float(packs.weights.sum())
