"""Records as views of the bytes that they were read in."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from pipeline.source.reading import slices


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=3)), max_size=8), st.binary(max_size=5))
def test_slices_are_the_stretches_of_the_bytes(parts, before):
    data, starts, ends = before, [], []
    for record, gap in parts:
        starts.append(len(data))
        ends.append(len(data) + len(record))
        data += record + gap
    found = slices(data, np.array(starts, np.int64), np.array(ends, np.int64))
    assert found.dtype == pl.Binary
    assert found.to_list() == [record for record, _ in parts]


def test_no_record_is_copied():
    data = b"".join(b"%05d" % i * 10 + b"\n" for i in range(1000))
    ends = np.arange(51, len(data) + 1, 51)
    views = slices(data, ends - 51, ends).to_arrow(compat_level=pl.CompatLevel.newest())
    start = np.frombuffer(data, np.uint8).ctypes.data
    assert [(buffer.address, buffer.size) for buffer in views.buffers()[2:]] == [(start, len(data))]
