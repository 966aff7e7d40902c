"""Compiled: the few instructions that Python has no word for: loads at an address, bit counts, lanes of a vector.

They are LLVM's own, on vectors of a fixed width, which LLVM maps to whatever the processor has: results are the same on
every machine.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_BLOCK = ir.VectorType(_I8, 64)


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
def bytes_between(typingctx: Any, address: Any, first: Any, span: Any) -> Any:  # noqa: ARG001
    """Return which of the 64 bytes at an address are first <= byte <= first + span, the first the lowest bit."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        block = _load(builder, arguments[0], _BLOCK)
        distance = builder.sub(block, _splat(builder, arguments[1], _BLOCK))
        return builder.bitcast(builder.icmp_unsigned("<=", distance, _splat(builder, arguments[2], _BLOCK)), _I64)

    return types.uint64(types.uint64, types.uint8, types.uint8), codegen


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


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)
