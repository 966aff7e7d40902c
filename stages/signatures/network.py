"""Compiled: sorting networks over vectors of sixteen uint32, without a branch to guess.

A block is k vectors. Its values are numbered: which of them is meant by a vector and a lane is a permutation of the
bits of the number, so that a comparison at any distance can be made one of whole vectors, by swapping a bit of the lane
with a bit of the vector first. The lanes are sorted by Batcher's odd-even merge sort (Knuth, The Art of Computer
Programming 3, section 5.3.4), which needs no swap, then merged bitonically.
"""

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
LANES = 16
_LANE_BITS = 4
_VECTOR = ir.VectorType(_I32, LANES)


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def sort_block(typingctx: Any, address: Any, k: Any) -> Any:  # noqa: ARG001
    """Sort the 16 * k uint32 at an address; k, a power of two from 2 on, is a literal."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        block = _Block(builder, arguments[0], k.literal_value)
        block.vectors = block.load()
        for low, high in _batcher(len(block.vectors)):
            block.exchange(low, high)
        bits = len(block.places) - _LANE_BITS
        # number = lane * k + vector: what is sorted now are the numbers that differ in the lower bits
        block.places = list(range(_LANE_BITS, _LANE_BITS + bits)) + list(range(_LANE_BITS))
        for top in range(bits, bits + _LANE_BITS):
            block.fold(top)
            for bit in reversed(range(top)):
                block.compare(bit)
        block.store()
        return context.get_dummy_value()

    return types.void(types.uint64, k), codegen


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def merge_block(typingctx: Any, address: Any, k: Any) -> Any:  # noqa: ARG001
    """Sort the 16 * k uint32 at an address if they first rise and then fall, or the reverse; k is a literal."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        block = _Block(builder, arguments[0], k.literal_value)
        block.vectors = block.load()
        for bit in reversed(range(len(block.places))):
            block.compare(bit)
        block.store()
        return context.get_dummy_value()

    return types.void(types.uint64, k), codegen


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def exchange_vectors(typingctx: Any, low: Any, high: Any, is_reversed: Any) -> Any:  # noqa: ARG001
    """Leave the lesser of two vectors' values at `low` and the greater at `high`, the latter read and written backwards
    if `is_reversed`, a literal."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        at_low, at_high = (builder.inttoptr(at, _VECTOR.as_pointer()) for at in arguments[:2])
        flip = LANES - 1 if is_reversed.literal_value else 0
        left, right = builder.load(at_low, align=4), _flip(builder, builder.load(at_high, align=4), flip)
        lesser, greater = _order(builder, left, right)
        builder.store(lesser, at_low, align=4)
        builder.store(_flip(builder, greater, flip), at_high, align=4)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, is_reversed), codegen


class _Block:
    """Vectors in registers while code is written for them, and which bit of a value's number lies where.

    `places[bit]` is a place: below 4 a bit of the lane, from 4 on a bit of the vector.
    """

    def __init__(self, builder: Any, address: Any, k: int) -> None:
        self.builder = builder
        step = [ir.Constant(_I64, 4 * LANES * i) for i in range(k)]
        self.pointers = [builder.inttoptr(builder.add(address, each), _VECTOR.as_pointer()) for each in step]
        self.vectors: list[Any] = []
        self.places = list(range(_LANE_BITS + k.bit_length() - 1))

    def load(self) -> list[Any]:
        return [self.builder.load(pointer, align=4) for pointer in self.pointers]

    def store(self) -> None:
        """Write the values in the order of their numbers."""
        for bit in range(_LANE_BITS):
            if self.places[bit] != bit:
                self._bring(bit, range(_LANE_BITS, len(self.places)))
                self._swap(bit, self.places[bit])
        for i, vector in enumerate(self.vectors):
            number = sum(1 << (bit - _LANE_BITS) for bit in range(_LANE_BITS, len(self.places)) if self._holds(i, bit))
            self.builder.store(vector, self.pointers[number], align=4)

    def exchange(self, low: int, high: int) -> None:
        self.vectors[low], self.vectors[high] = _order(self.builder, self.vectors[low], self.vectors[high])

    def compare(self, bit: int) -> None:
        """Put values that differ in `bit` alone in order."""
        place = self._bring(bit, self._by_next_use(bit))
        for i in range(len(self.vectors)):
            if not i >> (place - _LANE_BITS) & 1:
                self.exchange(i, i | 1 << (place - _LANE_BITS))

    def fold(self, top: int) -> None:
        """Put each value and that which differs from it in all bits up to `top` in order.

        So two rising runs become two of which all values of the first are less, neither with more than one turn. The
        second is left as it is met, backwards, which makes no difference to what follows.
        """
        mask = 1 << (self._bring(top, self._by_next_use(top)) - _LANE_BITS)
        lower = [self.places[bit] for bit in range(top)]
        lane_flip = sum(1 << place for place in lower if place < _LANE_BITS)
        vector_flip = sum(1 << (place - _LANE_BITS) for place in lower if place >= _LANE_BITS)
        before = list(self.vectors)
        for i in range(len(before)):
            if not i & mask:
                partner = _flip(self.builder, before[i ^ vector_flip | mask], lane_flip)
                self.vectors[i], self.vectors[i | mask] = _order(self.builder, before[i], partner)

    def _holds(self, vector: int, bit: int) -> int:
        return vector >> (self.places[bit] - _LANE_BITS) & 1

    def _by_next_use(self, bit: int) -> list[int]:
        """Return the places of the vector's bits, first of what is needed last: the bits below come next, then a merge
        begins again from above."""
        last_first = [*range(bit + 1, len(self.places)), *range(bit)]
        return [self.places[each] for each in last_first if self.places[each] >= _LANE_BITS]

    def _bring(self, bit: int, candidates: Any) -> int:
        """Make `bit` one of the vector, if it is one of the lane, in the first candidate's place; return its place."""
        if self.places[bit] < _LANE_BITS:
            self._swap(self.places[bit], next(iter(candidates)))
        return self.places[bit]

    def _swap(self, lane_place: int, vector_place: int) -> None:
        step, mask = 1 << lane_place, 1 << (vector_place - _LANE_BITS)
        from_low = [lane if not lane & step else LANES + (lane ^ step) for lane in range(LANES)]
        from_high = [lane | step if not lane & step else LANES + lane for lane in range(LANES)]
        for i in range(len(self.vectors)):
            if not i & mask:
                pair = self.vectors[i], self.vectors[i | mask]
                self.vectors[i] = _shuffle(self.builder, *pair, from_low)
                self.vectors[i | mask] = _shuffle(self.builder, *pair, from_high)
        one, other = self.places.index(lane_place), self.places.index(vector_place)
        self.places[one], self.places[other] = vector_place, lane_place


def _batcher(n: int) -> Iterator[tuple[int, int]]:
    """Yield the comparisons of Batcher's odd-even merge sort of n values, a power of two."""
    run = 1
    while run < n:
        distance = run
        while distance:
            for start in range(distance % run, n - distance, 2 * distance):
                for i in range(start, start + distance):
                    if i // (2 * run) == (i + distance) // (2 * run):
                        yield i, i + distance
            distance //= 2
        run *= 2


def _order(builder: Any, left: Any, right: Any) -> tuple[Any, Any]:
    is_less = builder.icmp_unsigned("<", left, right)
    return builder.select(is_less, left, right), builder.select(is_less, right, left)


def _flip(builder: Any, vector: Any, flip: int) -> Any:
    return _shuffle(builder, vector, vector, [lane ^ flip for lane in range(LANES)]) if flip else vector


def _shuffle(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(_VECTOR, lanes))
