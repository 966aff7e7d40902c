import polars as pl

from stages.signatures import Signatures
from stages.signatures.counts import count_texts


def test_texts_are_counted_by_scope():
    units = [
        [{"scope": "prompt", "message": 0}, {"scope": "turns", "message": 0}, {"scope": "turns", "message": 1}],
        [],
        [{"scope": "turns", "message": 1}],
    ]
    out = pl.DataFrame({"units": units})
    assert count_texts(out, out, Signatures()) == {"texts/prompt": 1, "texts/turns": 3}
    assert count_texts(out[:0], out[:0], Signatures()) == {}
    assert count_texts(out[1:2], out[1:2], Signatures()) == {}
