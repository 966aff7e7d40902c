"""Compiled: Arrow's string views to addresses."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from stages.machine import load_half

_INLINE = 12  # bytes of a string that lies in its view


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def read_views(
    views: int, buffers: NDArray[np.uint64], addresses: NDArray[np.uint64], sizes: NDArray[np.int32]
) -> None:
    """Write where each string lies and how many bytes it has, from the 16-byte views at an address.

    A view holds the size, then up to twelve bytes, or the first four, the number of a buffer and an offset in it.
    """
    for i in range(len(sizes)):
        view = views + np.uint64(16 * i)
        size = load_half(view)
        sizes[i] = np.int32(size)
        if size <= np.uint64(_INLINE):
            addresses[i] = view + np.uint64(4)
        else:
            addresses[i] = buffers[load_half(view + np.uint64(8))] + load_half(view + np.uint64(12))
