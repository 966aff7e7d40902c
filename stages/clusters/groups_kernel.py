"""Compiled: which nodes hang together."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

I64 = NDArray[np.int64]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def components(n_nodes: int, a: I64, b: I64) -> I64:
    """Return of each node the smallest node of its component, given the ends of all edges.

    Union-find with path halving (Tarjan and van Leeuwen, 1984); the smaller root wins, so the order of edges changes
    nothing.
    """
    parent = np.arange(n_nodes)
    for k in range(len(a)):
        x, y = a[k], b[k]
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        while parent[y] != y:
            parent[y] = parent[parent[y]]
            y = parent[y]
        if x < y:
            parent[y] = x
        else:
            parent[x] = y
    for node in range(n_nodes):  # a parent is never larger than its child, so it is done
        parent[node] = parent[parent[node]]
    return parent
