"""Compiled: the few instructions that Python has no word for: loads at an address, bit counts, lanes of a vector.

They are LLVM's own, on vectors of a fixed width, which LLVM maps to whatever the processor has: results are the same on
every machine.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BLOCK = ir.VectorType(_I8, 64)
_LANES = ir.VectorType(_I32, 16)


@intrinsic  # type: ignore[untyped-decorator]
def load_byte(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
    """Return the byte at an address, as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.zext(_load(builder, arguments[0], _I8), _I64)

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_half(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
    """Return the four bytes at an address, the first the lowest, as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.zext(_load(builder, arguments[0], _I32), _I64)

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def load_word(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
    """Return the eight bytes at an address, the first the lowest."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return _load(builder, arguments[0], _I64)

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_word(typingctx: Any, address: Any, word: Any) -> Any:  # noqa: ARG001
    """Write eight bytes at an address, the lowest first."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        builder.store(arguments[1], builder.inttoptr(arguments[0], _I64.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_byte(typingctx: Any, address: Any, byte: Any) -> Any:  # noqa: ARG001
    """Write the lowest byte of a word at an address."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        builder.store(builder.trunc(arguments[1], _I8), builder.inttoptr(arguments[0], _I8.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def store_half(typingctx: Any, address: Any, half: Any) -> Any:  # noqa: ARG001
    """Write the lower four bytes of a word at an address, the lowest first."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        half = builder.trunc(arguments[1], _I32)
        builder.store(half, builder.inttoptr(arguments[0], _I32.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def copy_bytes(typingctx: Any, target: Any, source: Any, n: Any) -> Any:  # noqa: ARG001
    """Copy `n` bytes from one address to another; the two stretches share none."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        to, origin = (builder.inttoptr(address, _I8.as_pointer()) for address in arguments[:2])
        cgutils.raw_memcpy(builder, to, origin, arguments[2], ir.Constant(_I64, 1))
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def beyond_ascii(typingctx: Any, address: Any) -> Any:  # noqa: ARG001
    """Return which of the 64 bytes at an address are no ASCII characters, the first the lowest bit."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        block = _load(builder, arguments[0], _BLOCK)
        return builder.bitcast(builder.icmp_signed("<", block, ir.Constant(_BLOCK, None)), _I64)

    return types.uint64(types.uint64), codegen


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def bytes_within(typingctx: Any, address: Any, ranges: Any, n: Any) -> Any:  # noqa: ARG001
    """Return which of the 64 bytes at an address are in one of `n` ranges, the first the lowest bit; `n` is a literal.

    A range is 128 bytes at `ranges`: its first byte, 64 times, and the distance of its last one, 64 times.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        block = _load(builder, arguments[0], _BLOCK)
        within = None
        for i in range(n.literal_value):
            at = builder.add(arguments[1], ir.Constant(_I64, 128 * i))
            distance = builder.sub(block, _load(builder, at, _BLOCK))
            span = _load(builder, builder.add(at, ir.Constant(_I64, 64)), _BLOCK)
            inside = builder.icmp_unsigned("<=", distance, span)
            within = inside if within is None else builder.or_(within, inside)
        return builder.bitcast(within, _I64)

    return types.uint64(types.uint64, types.uint64, n), codegen


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(typingctx: Any, bits: Any) -> Any:  # noqa: ARG001
    """Return how many bits below the lowest set one are not set; 64 if none is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


@intrinsic  # type: ignore[untyped-decorator]
def leading_zeros(typingctx: Any, bits: Any) -> Any:  # noqa: ARG001
    """Return how many bits above the highest set one are not set; 64 if none is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        return builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def least_lanes(typingctx: Any, hashes: Any, n: Any, factors: Any, terms: Any, lowest: Any, group: Any) -> Any:  # noqa: ARG001
    """Write the least of factor * hash + term over n hashes for each of 16 * group factors; `group` is a literal.

    All addresses are of uint32. The least of nothing is all ones.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        hashes, n, *others = arguments[:5]
        steps = [ir.Constant(_I64, 64 * i) for i in range(group.literal_value)]
        factors, terms, lowest = ([builder.add(start, step) for step in steps] for start in others)
        scale, shift = ([_load(builder, at, _LANES) for at in column] for column in (factors, terms))
        all_ones = ir.Constant(_LANES, [2**32 - 1] * _LANES.count)
        entry, loop, done = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("done")
        zero, one = ir.Constant(_I64, 0), ir.Constant(_I64, 1)
        builder.cbranch(builder.icmp_signed(">", n, zero), loop, done)
        with builder.goto_block(loop):
            i = builder.phi(_I64)
            running = [builder.phi(_LANES) for _ in steps]
            value = _load(builder, builder.add(hashes, builder.shl(i, ir.Constant(_I64, 2))), _I32)
            hash_lanes = _splat(builder, value)
            lowered = [
                _lesser(builder, builder.add(builder.mul(factor, hash_lanes), term), before)
                for factor, term, before in zip(scale, shift, running, strict=True)
            ]
            following = builder.add(i, one)
            i.add_incoming(zero, entry)
            i.add_incoming(following, loop)
            for phi, later in zip(running, lowered, strict=True):
                phi.add_incoming(all_ones, entry)
                phi.add_incoming(later, loop)
            builder.cbranch(builder.icmp_signed("<", following, n), loop, done)
        builder.position_at_end(done)
        final = [builder.phi(_LANES) for _ in steps]
        for phi, at, later in zip(final, lowest, lowered, strict=True):
            phi.add_incoming(all_ones, entry)
            phi.add_incoming(later, loop)
            builder.store(phi, builder.inttoptr(at, _LANES.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, types.uint64, types.uint64, types.uint64, group), codegen


def _lesser(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.icmp_unsigned("<", left, right), left, right)


def _splat(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_LANES, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, _LANES.count), None))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)
