"""Products of one row of weights with some rows of inputs, in vectors that LLVM is told to use.

Left to itself LLVM unrolls short loops over the weights of a group before it could make vectors of
them, which takes ten times as long. So the loop is written in its language, in vectors of sixteen,
which every processor has in registers of its own width.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hanol.attention.decode._weights import SPAN  # weights of a turn of the loop

LANES = 16

_float, _word = ir.FloatType(), ir.IntType(32)
_floats, _words = ir.VectorType(_float, LANES), ir.VectorType(_word, LANES)
_FAST = ("contract", "reassoc")


def dot_of(rows: int, outputs: int) -> Any:
    """y[r, m] = W[m] . x[r] for `rows` rows from `first` on and `outputs` rows of W from `n` on."""

    @intrinsic
    def dot(typing: Any, weight: Any, scale: Any, x: Any, y: Any, n: Any, first: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            arrays = [
                context.make_array(kind)(context, builder, value)
                for kind, value in zip((weight, scale, x, y), arguments[:4], strict=True)
            ]
            n_value, first_value = arguments[4:]
            _build(builder, weight.dtype, arrays, n_value, first_value, rows, outputs)
            return context.get_dummy_value()

        return types.void(weight, scale, x, y, n, first), build

    return dot


def _build(
    builder: Any, kind: Any, arrays: list[Any], n: Any, first: Any, rows: int, outputs: int
) -> None:
    weight, scale, x, y = arrays
    index = n.type
    columns = [cgutils.unpack_tuple(builder, one.shape)[1] for one in arrays]

    def rows_of(array: Any, start: Any, count: int, width: Any) -> list[Any]:
        return [
            builder.gep(array.data, [builder.mul(builder.add(start, index(i)), width)])
            for i in range(count)
        ]

    weights = rows_of(weight, n, outputs, columns[0])
    scales = rows_of(scale, n, outputs, columns[1])
    inputs = rows_of(x, first, rows, columns[2])
    # With one sum each addition waits for the one before: few products get several.
    parts = 4 if rows * outputs <= 2 else 1
    sums = {
        (r, m): [
            cgutils.alloca_once_value(builder, ir.Constant(_floats, None)) for _ in range(parts)
        ]
        for r in range(rows)
        for m in range(outputs)
    }
    for one in sums.values():
        for part in one:
            builder.store(ir.Constant(_floats, None), part)
    with cgutils.for_range(builder, builder.udiv(columns[2], index(SPAN))) as loop:
        at = builder.mul(loop.index, index(SPAN))
        decoded = [
            _decode(builder, kind, row, factors, at, loop.index)
            for row, factors in zip(weights, scales, strict=True)
        ]
        for i in range(SPAN // LANES):
            for r, values in enumerate(inputs):
                vector = _load(builder, values, builder.add(at, index(i * LANES)), _floats)
                for m in range(outputs):
                    part = sums[r, m][i % parts]
                    term = builder.fmul(decoded[m][i], vector, _FAST)
                    builder.store(builder.fadd(builder.load(part), term, _FAST), part)
    for (r, m), one in sums.items():
        total = builder.load(one[0])
        for part in one[1:]:
            total = builder.fadd(total, builder.load(part), _FAST)
        place = builder.mul(builder.add(first, index(r)), columns[3])
        place = builder.add(place, builder.add(n, index(m)))
        builder.store(_sum(builder, total), builder.gep(y.data, [place]))


def _decode(builder: Any, kind: Any, row: Any, scales: Any, at: Any, turn: Any) -> list[Any]:
    """The next `SPAN` weights as vectors of float32, with their scale."""
    index = at.type
    places = [builder.add(at, index(i * LANES)) for i in range(SPAN // LANES)]
    if kind == types.float32:
        return [_load(builder, row, place, _floats) for place in places]
    if kind == types.uint16:
        halves = ir.VectorType(ir.IntType(16), LANES)
        words = [builder.zext(_load(builder, row, place, halves), _words) for place in places]
        return [builder.bitcast(builder.shl(word, _all(16)), _floats) for word in words]
    octets = ir.VectorType(ir.IntType(8), LANES)
    if kind == types.int8:  # a scale for 64 weights
        factor = _spread(builder, builder.load(builder.gep(scales, [turn])))
        words = [builder.sext(_load(builder, row, place, octets), _words) for place in places]
        return [builder.fmul(builder.sitofp(word, _floats), factor, _FAST) for word in words]
    # int4, a scale for 32 weights, of which 16 lie in the low bits of 16 bytes; their zero is 8
    found = []
    for group in range(2):
        number = builder.add(builder.mul(turn, index(2)), index(group))
        factor = _spread(builder, builder.load(builder.gep(scales, [number])))
        packed = _load(builder, row, builder.mul(number, index(LANES)), octets)
        for shift in (0, 4):
            word = builder.lshr(builder.zext(packed, _words), _all(shift))
            word = builder.sub(builder.and_(word, _all(15)), _all(8))
            found.append(builder.fmul(builder.sitofp(word, _floats), factor, _FAST))
    return found


def _all(value: int) -> Any:
    return ir.Constant(_words, [value] * LANES)


def _load(builder: Any, base: Any, offset: Any, kind: Any) -> Any:
    place = builder.bitcast(builder.gep(base, [offset]), kind.as_pointer())
    return builder.load(place, align=4 if kind.element == _float else kind.element.width // 8)


def _spread(builder: Any, value: Any) -> Any:
    undefined = ir.Constant(_floats, ir.Undefined)
    one = builder.insert_element(undefined, value, _word(0))
    return builder.shuffle_vector(one, undefined, _all(0))


def _sum(builder: Any, vector: Any) -> Any:
    """The sum of a vector's elements, halving it."""
    width = LANES
    while width > 1:
        half = width // 2
        lanes = ir.VectorType(_word, half)
        low, high = (
            builder.shuffle_vector(
                vector, vector, ir.Constant(lanes, list(range(start, start + half)))
            )
            for start in (0, half)
        )
        vector, width = builder.fadd(low, high, _FAST), half
    return builder.extract_element(vector, _word(0))
