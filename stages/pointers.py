"""Compiled: memory at an address as an array, for columns that lie in more buffers than one array can hold."""

from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
    """Turn an address into a pointer, which numba.carray makes an array of."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.uint64), codegen


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def words_at(address: int, n: int) -> NDArray[np.uint64]:
    """Return the n uint64 at an address; whoever calls keeps the owner alive."""
    view: NDArray[np.uint64] = numba.carray(_pointer(address), (n,), numba.uint64)
    return view


@njit(cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def halves_at(address: int, n: int) -> NDArray[np.uint32]:
    """Return the n uint32 at an address; whoever calls keeps the owner alive."""
    view: NDArray[np.uint32] = numba.carray(_pointer(address), (n,), numba.uint32)
    return view
