import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.pack import Pack, count_packed, pack_conversations

SCHEMA = {
    "id": pl.String,
    "split": pl.String,
    "input_ids": pl.List(pl.Int32),
    "labels": pl.List(pl.Int32),
    "loss_weights": pl.List(pl.Float32),
    "n_tokens": pl.Int32,
    "n_supervised": pl.Int32,
}


def labelled(*lengths: int, splits: list[str] | None = None, weights: dict[int, float] | None = None) -> pl.DataFrame:
    """Rows of the given lengths; row i holds tokens 1000 * i, ..., trained but for the first."""
    ids = [[1000 * i + k for k in range(n)] for i, n in enumerate(lengths)]
    return pl.DataFrame(
        {
            "id": [f"a:{i}" for i in range(len(lengths))],
            "split": splits or ["train"] * len(lengths),
            "input_ids": ids,
            "labels": [[-100, *row[1:]] for row in ids],
            "loss_weights": [
                [0.0] + [weights[i]] * (n - 1) if weights and i in weights else None for i, n in enumerate(lengths)
            ],
            "n_tokens": list(lengths),
            "n_supervised": [n - 1 for n in lengths],
        },
        schema=SCHEMA,
    )


def tagged(frame: pl.DataFrame, **tags: list[str]) -> pl.DataFrame:
    """The conversations of `frame`, with such tags: a0=["x"] for those of a:0."""
    ids = list(dict.fromkeys(name.partition("#")[0] for name in frame["id"]))
    found = [tags.get(name.replace(":", ""), []) for name in ids]
    return pl.DataFrame({"id": ids, "tags": found}, schema={"id": pl.String, "tags": pl.List(pl.String)})


def packed(frame: pl.DataFrame, config: Pack, **tags: list[str]) -> pl.DataFrame:
    return pack_conversations(frame, tagged(frame, **tags), config)


def test_the_longest_goes_first_and_each_into_the_fullest_pack_that_has_room():
    out = packed(labelled(3, 5, 4, 8), Pack(max_seq_len=8))
    assert out["ids"].to_list() == [["a:3"], ["a:1", "a:0"], ["a:2"]]
    assert out["seq_lengths"].to_list() == [[8], [5, 3], [4]]
    assert out["n_supervised"].to_list() == [7, 6, 3]
    assert out["input_ids"][1].to_list() == [1000, 1001, 1002, 1003, 1004, 0, 1, 2]
    assert out["labels"][1].to_list() == [-100, 1001, 1002, 1003, 1004, -100, 1, 2]


def test_a_conversation_that_fits_nowhere_is_dropped_alone_with_its_length():
    out = packed(labelled(3, 11), Pack(max_seq_len=8))
    assert out["ids"].to_list() == [["a:0"], ["a:1"]]
    assert out["drop_reason"].to_list() == [None, "over_max_seq_len"]
    assert out["detail"].to_list() == [None, "11 tokens, [pack] max_seq_len = 8"]


def test_splits_never_share_a_pack():
    out = packed(labelled(2, 2, 2, splits=["train", "validation", "train"]), Pack(max_seq_len=8))
    assert out.select("split", "ids").rows() == [("train", ["a:0", "a:2"]), ("validation", ["a:1"])]


def test_weights_travel_with_their_tokens_and_are_summed():
    out = packed(labelled(4, 3, 8, weights={0: 0.5}), Pack(max_seq_len=8))
    assert out["ids"].to_list() == [["a:2"], ["a:0", "a:1"]]
    assert out["loss_weights"].to_list() == [None, [0.0, 0.5, 0.5, 0.5, 0.0, 1.0, 1.0]]
    assert out["weight_sum"].to_list() == [7.0, 3.5]
    assert out["root_weight_sum"].to_list() == [7**0.5, 1.5**0.5 + 2**0.5]


def test_sums_are_those_of_the_conversations_of_a_pack():
    frame = labelled(3, 5, 2)
    silent = frame.with_columns(
        pl.Series("n_supervised", [2, 4, 0], pl.Int32),
        pl.Series("labels", [*frame["labels"].to_list()[:2], [-100, -100]], pl.List(pl.Int32)),
    )
    out = packed(silent, Pack(max_seq_len=9))
    assert out["seq_lengths"].to_list() == [[5, 3], [2]]
    sums = out.select("n_tokens", "longest", "sum_squares", "n_trained", "root_weight_sum").rows()
    assert sums == [(8, 5, 34, 2, 2 + 2**0.5), (2, 2, 4, 0, 0.0)]


def test_single_leaves_each_conversation_alone_and_in_its_place():
    frame = labelled(3, 11, 5, 4, splits=["train", "train", "validation", "train"])
    out = packed(frame, Pack(max_seq_len=8, strategy="single"))
    assert out["ids"].to_list() == [["a:0"], ["a:3"], ["a:1"], ["a:2"]]
    assert out["drop_reason"].to_list() == [None, None, "over_max_seq_len", None]
    assert out["input_ids"].to_list()[1] == [3000, 3001, 3002, 3003]
    assert out["seq_lengths"].to_list() == [[3], [4], [11], [5]]


def test_a_checksum_changes_with_all_that_is_trained_with_and_nothing_else():
    def checksum(frame: pl.DataFrame) -> int:
        (found,) = packed(frame, Pack(max_seq_len=8, strategy="single"))["checksum"].to_list()
        return found

    frame = labelled(4)
    good = checksum(frame)
    assert checksum(frame.with_columns(n_tokens=pl.lit(9, pl.Int32))) == good
    changes = {
        "id": "a:1",
        "input_ids": [0, 1, 2, 4],
        "labels": [-100, -100, 2, 3],
        "loss_weights": [0.0, 1.0, 1.0, 1.0],
        "n_supervised": 2,
    }
    found = {checksum(frame.with_columns(pl.Series(name, [value], SCHEMA[name]))) for name, value in changes.items()}
    assert len(found | {good}) == 6


def test_no_rows_give_no_packs():
    out = packed(labelled().clear(), Pack())
    assert out.height == 0
    assert set(out.columns) >= {"ids", "input_ids", "labels", "seq_lengths"}


@given(st.lists(st.integers(2, 40), max_size=60), st.integers(8, 33), st.sampled_from(["bfd", "single"]))
def test_tokens_in_are_tokens_out_and_no_pack_is_too_long(lengths, capacity, strategy):
    frame = labelled(*lengths)
    out = packed(frame, Pack(max_seq_len=capacity, strategy=strategy))
    kept = out.filter(pl.col("drop_reason").is_null())
    assert sorted(name for ids in out["ids"].to_list() for name in ids) == sorted(frame["id"].to_list())
    assert all(sum(row) == len(ids) <= capacity for row, ids in kept.select("seq_lengths", "input_ids").iter_rows())
    # each conversation is whole, in one place, with its own labels
    rows = dict(frame.select("id", "input_ids").iter_rows())
    for ids, lengths_of, tokens, labels in out.select("ids", "seq_lengths", "input_ids", "labels").iter_rows():
        position = 0
        for name, length in zip(ids, lengths_of, strict=True):
            piece = tokens[position : position + length]
            assert piece == rows[name]
            assert labels[position : position + length] == [-100, *piece[1:]]
            position += length


@given(st.lists(st.integers(1, 64), min_size=1, max_size=200))
def test_at_most_one_pack_is_half_empty(lengths):
    # true of every packing that opens a pack only when nothing else fits: two such packs would have been one
    out = packed(labelled(*lengths), Pack(max_seq_len=64))
    assert sum(sum(row) <= 32 for row in out["seq_lengths"].to_list()) <= 1


def test_tags_stand_beside_their_conversations_in_the_order_of_the_pack():
    odd = 'a,b\n\x1b[31m"|</td>'
    out = packed(labelled(3, 5, 4, 11), Pack(max_seq_len=8), a0=["domain:code", odd], a1=["domain:code"], a3=["long"])
    assert out["ids"].to_list() == [["a:1", "a:0"], ["a:2"], ["a:3"]]
    assert out["tags"].to_list() == [[["domain:code"], ["domain:code", odd]], [[]], [["long"]]]


def test_a_window_has_the_tags_of_its_conversation():
    frame = labelled(3, 3, 3).with_columns(id=pl.Series(["a#1:7#1", "a#1:7#2", "a#1:8"]))
    known = pl.DataFrame({"id": ["a#1:6", "a#1:7", "a#1:8"], "tags": [["no"], ["seven"], ["eight"]]})
    out = pack_conversations(frame, known, Pack(max_seq_len=9))
    assert out["tags"].to_list() == [[["seven"], ["seven"], ["eight"]]]


def test_a_row_of_no_known_conversation_is_a_defect():
    frame = labelled(3, 3)
    with pytest.raises(ValueError, match="that dedup kept: a:1"):
        pack_conversations(frame, tagged(frame.head(1), a0=["x"]), Pack(max_seq_len=8))


def test_tags_change_no_pack_and_no_checksum():
    frame = labelled(3, 5, 4, 8, 2)
    plain = packed(frame, Pack(max_seq_len=8))
    with_tags = packed(frame, Pack(max_seq_len=8), a0=["x"], a4=["x", "y"])
    assert with_tags.drop("tags").equals(plain.drop("tags"))
    assert set(plain["tags"].explode().explode().drop_nulls()) == set()


def test_what_is_packed_is_counted_for_each_tag_and_split():
    frame = labelled(3, 5, 9, 4, splits=["train", "train", "train", "validation"])
    known = tagged(frame, a0=["x", "y/z"], a1=["x"], a2=["x"], a3=["x"])
    # a:2 is too long for a pack
    assert count_packed(frame, frame, known, Pack(max_seq_len=8)) == {
        "tagged/train/conversations/x": 2,
        "tagged/train/tokens/x": 8,
        "tagged/train/trained/x": 6,
        "tagged/train/conversations/y/z": 1,
        "tagged/train/tokens/y/z": 3,
        "tagged/train/trained/y/z": 2,
        "tagged/validation/conversations/x": 1,
        "tagged/validation/tokens/x": 4,
        "tagged/validation/trained/x": 3,
    }
    assert count_packed(frame, frame, tagged(frame), Pack()) == {}


def test_of_very_many_tags_the_rare_ones_count_together():
    frame = labelled(*[3] * 90)
    own = {f"a{i}": ["all", f"t{i // 2:02}", f"u{i // 2:02}", f"v{i // 2:02}"] for i in range(90)}
    counts = count_packed(frame, frame, tagged(frame, **own), Pack())
    assert len(counts) == 3 * 65
    assert counts["tagged/train/conversations/all"] == 90
    # 63 of the other 135 have a name of their own; every conversation has one or two of the rest, and counts once
    assert counts["tagged/train/conversations/*"] == 90
    assert counts["tagged/train/tokens/*"] == 3 * 90
