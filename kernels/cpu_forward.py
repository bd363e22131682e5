"""A whole forward of a small model on a CPU as one compiled function.

Plain PyTorch spends most of such a forward starting two hundred small operations, and its matrix products are made
for many more rows than a block has. Here LLVM compiles (by Numba) what PyTorch calls one by one:

    x += attention(rmsnorm(x)) ; x += down(silu(gate) * up), gate, up = rmsnorm(x) ; logits = head(rmsnorm(x))

Weights are packed once, 16 outputs side by side, so that a tile of up to six rows stays in registers while they are
read. Those that a bfloat16 holds exactly, as a checkpoint's do, are kept in two bytes: half the memory traffic, and the
very same float32 products. Every output is the sum of its products in the order of its inputs, each rounded once,
and a query's scores never depend on what else is in the pass. So a token's logits are the same bits whether it comes
alone, in a block or in a batch: self-speculation on this path is exact by construction and not only in practice.

The reference it must equal is `TriModeModel.hidden` and its head. Nothing here holds the interpreter's lock. All that is
compiled stands in this one file, because Numba compiles again when the file of a function has changed, and no other.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, literal_unroll, njit, types
from numba.extending import intrinsic

from kernels.pace import Pace

PANEL = 16  # outputs side by side: two vectors of a register of 256 bits
TALLEST = 6  # rows of a tile: 12 sums, 2 weights and an input fill 16 registers
CAUSAL, BIDIRECTIONAL, MASKED = 0, 1, 2  # what a query sees of its own input

_LANES = 8
_F32, _I32, _I64, _POINTER = ir.FloatType(), ir.IntType(32), ir.IntType(64), ir.PointerType()
_VECTOR, _WORDS = ir.VectorType(_F32, _LANES), ir.VectorType(_I32, _LANES)


def _number(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _place(builder: ir.IRBuilder, base: ir.Value, offset: ir.Value) -> ir.Value:
    return builder.inttoptr(builder.add(base, offset), _POINTER)


def _accumulated(
    builder: ir.IRBuilder, count: int, end: ir.Value, by: int, factors: Callable[[ir.Value], Iterable[tuple[ir.Value, ir.Value]]]
) -> list[ir.Value]:
    """`count` vectors in registers, each the sum of a product for every k = 0, by … below `end`, in this order.

    `factors(k)` writes a turn of the loop and gives a pair of vectors for each sum.
    """
    fma = builder.module.declare_intrinsic("llvm.fmuladd.v8f32", fnty=ir.FunctionType(_VECTOR, [_VECTOR] * 3))
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_I64)
    sums = [builder.phi(_VECTOR) for _ in range(count)]
    nexts = [builder.call(fma, [one, other, sum]) for sum, (one, other) in zip(sums, factors(k), strict=True)]
    after = builder.add(k, _number(by))
    k.add_incoming(_number(0), entry)
    k.add_incoming(after, loop)
    for sum, value in zip(sums, nexts):
        sum.add_incoming(ir.Constant(_VECTOR, [0.0] * _LANES), entry)
        sum.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", after, end), loop, done)
    builder.position_at_end(done)
    return nexts


def _tile(panels: int, halves: bool, tallest: int = TALLEST):
    """A compiled product of some rows with some panels of weights, its sums in registers all the way.

    tile(rows, x, x_stride, weights, step, gap, depth, out, out_stride, add): up to `tallest` rows, then addresses and byte
    distances; input k of a row lies at x + 4k, its weights at weights + k·step, those of the next panel `gap` further; out is
    set, or added to where add is not 0.
    """

    @intrinsic
    def tile(typing, rows, x, x_stride, weights, step, gap, depth, out, out_stride, add):
        signature = types.void(*[types.intp] * 10)

        def generate(context, builder, _, arguments):
            wanted, *arguments = arguments
            other, end = builder.append_basic_block(), builder.append_basic_block()
            choice = builder.switch(wanted, other)
            for rows in range(1, tallest + 1):
                block = builder.append_basic_block()
                choice.add_case(_number(rows), block)
                builder.position_at_end(block)
                _multiply(builder, rows, panels, halves, *arguments)
                builder.branch(end)
            builder.position_at_end(other)
            builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        return signature, generate

    return tile


def _multiply(builder, rows, panels, halves, x, x_stride, weights, step, gap, depth, out, out_stride, add):
    """The product of so many rows, at the end of the builder's block; see `_tile`."""
    undefined, first = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(_I32, 0)

    lines = [builder.add(x, builder.mul(x_stride, _number(row))) for row in range(rows)]
    tops = [builder.add(weights, builder.mul(gap, _number(panel))) for panel in range(panels)]
    adds = builder.icmp_signed("!=", add, _number(0))

    def factors(k: ir.Value) -> Iterator[tuple[ir.Value, ir.Value]]:
        across, down = builder.mul(k, _number(4)), builder.mul(k, step)
        columns = []
        for top in tops:
            if halves:  # a word holds the upper halves of two outputs, eight apart
                word = builder.load(_place(builder, top, down), typ=_WORDS, align=4)
                columns.append(builder.bitcast(builder.shl(word, ir.Constant(_WORDS, [16] * _LANES)), _VECTOR))
                columns.append(builder.bitcast(builder.and_(word, ir.Constant(_WORDS, [0xFFFF0000] * _LANES)), _VECTOR))
            else:
                columns.append(builder.load(_place(builder, top, down), typ=_VECTOR, align=4))
                columns.append(builder.load(_place(builder, top, builder.add(down, _number(4 * _LANES))), typ=_VECTOR, align=4))
        for line in lines:
            one = builder.insert_element(undefined, builder.load(_place(builder, line, across), typ=_F32, align=4), first)
            one = builder.shuffle_vector(one, undefined, ir.Constant(_WORDS, [0] * _LANES))
            for column in columns:
                yield one, column

    for n, value in enumerate(_accumulated(builder, rows * 2 * panels, depth, 1, factors)):
        row, column = divmod(n, 2 * panels)
        goal = _place(builder, out, builder.add(builder.mul(out_stride, _number(row)), _number(4 * _LANES * column)))
        with builder.if_else(adds) as (adding, setting):
            with adding:
                builder.store(builder.fadd(builder.load(goal, typ=_VECTOR, align=4), value), goal, align=4)
            with setting:
                builder.store(value, goal, align=4)


def _dots(rows: int, keys: int):
    """Compiled scalar products of `rows` queries with `keys` keys, in registers.

    dots(queries, query_stride, keys, key_stride, size, out, out_stride): byte distances; sums are made in eight lanes,
    which are then added pair by pair, so that no product depends on what else is computed.
    """

    @intrinsic
    def dots(typing, queries, query_stride, first_key, key_stride, size, out, out_stride):
        signature = types.void(*[types.intp] * 7)

        def generate(context, builder, _, arguments):
            queries, query_stride, first_key, key_stride, size, out, out_stride = arguments
            lines = [builder.add(queries, builder.mul(query_stride, _number(row))) for row in range(rows)]
            columns = [builder.add(first_key, builder.mul(key_stride, _number(key))) for key in range(keys)]

            def factors(i: ir.Value) -> Iterator[tuple[ir.Value, ir.Value]]:
                offset = builder.mul(i, _number(4))
                theirs = [builder.load(_place(builder, column, offset), typ=_VECTOR, align=4) for column in columns]
                for line in lines:
                    own = builder.load(_place(builder, line, offset), typ=_VECTOR, align=4)
                    for other in theirs:
                        yield own, other

            for n, value in enumerate(_accumulated(builder, rows * keys, size, _LANES, factors)):
                for half in (4, 2, 1):
                    low, high = (
                        builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(_I32, half), list(range(start, start + half))))
                        for start in (0, half)
                    )
                    value = builder.fadd(low, high)
                total = builder.extract_element(value, ir.Constant(_I32, 0))
                row, key = divmod(n, keys)
                builder.store(total, _place(builder, out, builder.add(builder.mul(out_stride, _number(row)), _number(4 * key))), align=4)
            return context.get_dummy_value()

        return signature, generate

    return dots


@intrinsic
def _larger(typing, a, b):
    """The larger of two float32, or what is not a number of them; unlike a comparison it can be done eight at a time."""

    def generate(context, builder, _, arguments):
        maximum = builder.module.declare_intrinsic("llvm.maximum.f32", fnty=ir.FunctionType(_F32, [_F32, _F32]))
        return builder.call(maximum, arguments)

    return types.float32(types.float32, types.float32), generate


@intrinsic
def _as_bits(typing, value):
    """The bits of a float32."""
    return types.int32(types.float32), lambda context, builder, _, arguments: builder.bitcast(arguments[0], _I32)


@intrinsic
def _as_float(typing, bits):
    """The float32 of these bits."""
    return types.float32(types.int32), lambda context, builder, _, arguments: builder.bitcast(arguments[0], _F32)


@intrinsic
def _arrived(typing, place):
    """Add one to the int64 at this address, after everything this thread has written."""

    def generate(context, builder, _, arguments):
        builder.atomic_rmw("add", builder.inttoptr(arguments[0], _POINTER), ir.Constant(_I64, 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def _arrivals(typing, place):
    """The int64 at this address, as other threads left it, and all that they wrote before."""

    def generate(context, builder, _, arguments):
        return builder.load_atomic(builder.inttoptr(arguments[0], _POINTER), "seq_cst", 8, typ=_I64)

    return types.int64(types.intp), generate


_let_others = types.ExternalFunction("sched_yield", types.int32())

_half_tile, _full_tile = _tile(1, True), _tile(1, False)
_half_wide, _full_wide = _tile(4, True, 1), _tile(4, False, 1)  # a row alone has too few sums to hide how long one takes

_dots_1, _dots_1x4, _dots_2x4 = _dots(1, 1), _dots(1, 4), _dots(2, 4)
_dots_3x2, _dots_4x2, _dots_5x2, _dots_6x2 = (_dots(rows, 2) for rows in range(3, 7))

# Only sums may be reordered, and only those of one row; what is not a number stays so.
_SUMS = {"reassoc", "contract"}
_PATIENCE = np.int64(2000)  # looks at a gate before the core is offered to others: some microseconds
_SET, _ADD = np.int64(0), np.int64(1)  # no Python numbers, for which Numba would compile everything once each
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_FLOOR = np.float32(-1e4)
_LEAST, _MOST, _LOG2E, _ROUND = np.float32(-87.0), np.float32(88.0), np.float32(1.44269504), np.float32(12582912.0)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
_E2, _E3, _E4, _E5, _E6, _E7 = (np.float32(x) for x in (0.5, 1.6666666e-1, 4.1666526e-2, 8.3333334e-3, 1.3888889e-3, 1.984127e-4))


@njit(nogil=True, cache=True, error_model="numpy")
def _product(x, weights, halves, depth, width, out, add):
    """out[rows, width] (+)= x[rows, depth] times packed weights at the address `weights`; both a whole number of panels wide."""
    rows, panels = x.shape[0], width // PANEL
    step = 32 if halves else 64
    gap = depth * step
    source, x_stride = x.ctypes.data, x.strides[0]
    goal, out_stride = out.ctypes.data, out.strides[0]
    if rows == 1:
        panel = 0
        while panel + 4 <= panels:
            if halves:
                _half_wide(1, source, x_stride, weights + panel * gap, step, gap, depth, goal + panel * 64, out_stride, add)
            else:
                _full_wide(1, source, x_stride, weights + panel * gap, step, gap, depth, goal + panel * 64, out_stride, add)
            panel += 4
        while panel < panels:
            if halves:
                _half_tile(1, source, x_stride, weights + panel * gap, step, gap, depth, goal + panel * 64, out_stride, add)
            else:
                _full_tile(1, source, x_stride, weights + panel * gap, step, gap, depth, goal + panel * 64, out_stride, add)
            panel += 1
        return
    tiles = (rows + TALLEST - 1) // TALLEST
    for panel in range(panels):
        row = 0
        for left in range(tiles, 0, -1):
            count = (rows - row + left - 1) // left  # tiles of even heights: a low one leaves the registers idle
            top, bottom = source + row * x_stride, goal + row * out_stride + panel * 64
            if halves:
                _half_tile(count, top, x_stride, weights + panel * gap, step, gap, depth, bottom, out_stride, add)
            else:
                _full_tile(count, top, x_stride, weights + panel * gap, step, gap, depth, bottom, out_stride, add)
            row += count


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _exp(x):
    """e to the x in float32, to about an ulp between the bounds and 0 below them (after Cephes); a loop of it becomes vectors."""
    y = _MOST if x > _MOST else x
    y = _LEAST if y < _LEAST else y
    t = y * _LOG2E + _ROUND  # adding this large a number rounds to a whole one
    n = t - _ROUND
    r = (y - n * _LN2_HIGH) - n * _LN2_LOW
    p = ((((_E7 * r + _E6) * r + _E5) * r + _E4) * r + _E3) * r + _E2
    p = p * r * r + r + _ONE
    whole = p * _as_float((_as_bits(t) - np.int32(0x4B400000) + np.int32(127)) << np.int32(23))
    return _ZERO if x < _LEAST else whole


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_SUMS)
def _normed(x, weight, eps, out):
    square = _ZERO
    for i in range(weight.shape[0]):
        square += x[i] * x[i]
    scale = _ONE / np.sqrt(square / np.float32(weight.shape[0]) + eps)
    for i in range(weight.shape[0]):
        out[i] = x[i] * scale * weight[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _rotated(x, cos, sin, scale, out):
    half = x.shape[0] // 2
    for i in range(half):  # `sin` carries the minus of its first half
        first, second = x[i], x[i + half]  # `out` may be `x`
        out[i] = (first * cos[i] + second * sin[i]) * scale
        out[i + half] = (second * cos[i + half] + first * sin[i + half]) * scale


@njit(nogil=True, cache=True, error_model="numpy")
def _scored(rows, queries, query_stride, keys, key_stride, size, count, out, out_stride):
    """Products of `rows` queries with `count` keys, each with each."""
    j = 0
    if rows <= 2:
        while j + 4 <= count:
            if rows == 1:
                _dots_1x4(queries, query_stride, keys + j * key_stride, key_stride, size, out + 4 * j, out_stride)
            else:
                _dots_2x4(queries, query_stride, keys + j * key_stride, key_stride, size, out + 4 * j, out_stride)
            j += 4
    else:
        while j + 2 <= count:
            key = keys + j * key_stride
            if rows == 6:
                _dots_6x2(queries, query_stride, key, key_stride, size, out + 4 * j, out_stride)
            elif rows == 5:
                _dots_5x2(queries, query_stride, key, key_stride, size, out + 4 * j, out_stride)
            elif rows == 4:
                _dots_4x2(queries, query_stride, key, key_stride, size, out + 4 * j, out_stride)
            else:
                _dots_3x2(queries, query_stride, key, key_stride, size, out + 4 * j, out_stride)
            j += 2
    while j < count:
        key = keys + j * key_stride
        for row in range(rows):
            _dots_1(queries + row * query_stride, query_stride, key, key_stride, size, out + 4 * j + row * out_stride, out_stride)
        j += 1


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_SUMS)
def _softened(scores, scale):
    """Softmax of scores times `scale`, in place; minus infinity becomes exactly 0."""
    largest = np.float32(-np.inf)
    for j in range(len(scores)):
        largest = _larger(largest, scores[j])
    total = _ZERO
    for j in range(len(scores)):
        scores[j] = _exp((scores[j] - largest) * scale)
        total += scores[j]
    share = _ONE / total
    for j in range(len(scores)):
        scores[j] *= share


@njit(nogil=True, cache=True, error_model="numpy")
def _meet(gate, expected):
    """Go on when so many arrivals were counted at `gate` [1], this one included."""
    place = np.int64(gate.ctypes.data)
    _arrived(place)
    turns = 0
    while _arrivals(place) < expected:
        turns += 1
        if turns > _PATIENCE:  # whoever is awaited may be waiting for this very core
            _let_others()


@njit(nogil=True, cache=True, error_model="numpy")
def _attend(qkv, part, low, high, heads, pairs, keys, values, visible, scores, out):
    """Queries low..high of one part over [its prefix ‖ itself], whose keys and values lie in the storage already."""
    row, prefix, start, count, pattern = part[0], part[1], part[2], part[3], part[4]
    size, groups = keys.shape[3], heads // pairs
    scale = np.float32(1.0 / np.sqrt(size))
    longest, key_stride = prefix + count, keys.strides[2]
    # A tile holds positions of one head or, where there is but one position, the heads that share its keys.
    alone = count == 1
    bottom, top, passes = (0, groups, 1) if alone else (low, high, groups)
    query_stride, out_stride = (4 * size, 4 * size) if alone else (qkv.strides[0], out.strides[0])
    table, line = np.int64(scores.ctypes.data), scores.strides[0]
    for pair in range(pairs):
        k, v = np.int64(keys[row, pair].ctypes.data), np.int64(values[row, pair].ctypes.data)
        for group in range(passes):
            offset = 4 * (pair * groups + group) * size
            queries = np.int64(qkv.ctypes.data) + start * qkv.strides[0] + offset
            goal = np.int64(out.ctypes.data) + start * out.strides[0] + offset
            for first in range(bottom, top, TALLEST):
                tall = min(TALLEST, top - first)
                last = longest if alone or pattern != CAUSAL else prefix + first + tall
                _scored(tall, queries + first * query_stride, query_stride, k, key_stride, size, last, table, line)
                for t in range(tall):
                    i = 0 if alone else first + t
                    sees = prefix + i + 1 if pattern == CAUSAL else longest
                    if pattern == MASKED:
                        for j in range(count):
                            if not visible[start + i, j]:
                                scores[t, prefix + j] = -np.inf
                    _softened(scores[t, :sees], scale)
                    for j in range(sees, last):
                        scores[t, j] = _ZERO  # adds nothing: a row's sum is the same with more keys behind it
                for panel in range(0, 4 * size, 4 * PANEL):
                    _full_tile(tall, table, line, v + panel, key_stride, 0, last, goal + first * out_stride + panel, out_stride, _SET)


@njit(nogil=True, cache=True, error_model="numpy")
def _gated(both):
    """silu(gate) * up of rows [gate ‖ up], in place of the gate."""
    inner = both.shape[1] // 2
    for row in range(both.shape[0]):
        gate, up = both[row, :inner], both[row, inner:]
        for i in range(inner):
            gate[i] = gate[i] / (_ONE + _exp(-gate[i])) * up[i]


@njit(nogil=True, cache=True, error_model="numpy")
def _forward(
    tokens, positions, parts, visible, rows, embedding, norms, places, halves, heads, pairs, inner, eps, cos, sin, scales,
    keys, values, x, normed, qkv, seen, both, scores, logits, share, shares, gate,
):  # fmt: skip
    """One forward of tokens [total]; see `Program.__call__`. x to scores are room to work in, `logits` the result.

    Where `logits` is empty the normalised last hidden states of `rows` are left in `normed`. This is `share` 0, 1 ... of
    so many `shares`, each in a thread of its own with scores of its own: each does its part of the rows from start to
    end, and they wait for one another's keys and values in every layer (at `gate`, which is 0 at the start).
    """
    size, hidden, layers = keys.shape[4], norms.shape[1], len(places) - 1
    low, high = len(tokens) * share // shares, len(tokens) * (share + 1) // shares
    for i in range(low, high):
        for column in range(hidden):
            x[i, column] = embedding[tokens[i], column]
    for layer in range(layers):
        for i in range(low, high):
            _normed(x[i], norms[2 * layer], eps, normed[i])
        _product(normed[low:high], places[layer, 0], halves, hidden, qkv.shape[1], qkv[low:high], _SET)
        for p in range(len(parts)):
            row, prefix, start, count = parts[p, 0], parts[p, 1], parts[p, 2], parts[p, 3]
            for i in range(max(start, low), min(start + count, high)):
                c, s, stands = cos[positions[i]], sin[positions[i]], prefix + i - start
                for head in range(heads):
                    own = qkv[i, head * size : (head + 1) * size]
                    _rotated(own, c, s, scales[positions[i]], own)
                for pair in range(pairs):
                    first = (heads + pair) * size
                    _rotated(qkv[i, first : first + size], c, s, _ONE, keys[layer, row, pair, stands])
                    first += pairs * size
                    for column in range(size):
                        values[layer, row, pair, stands, column] = qkv[i, first + column]
        _meet(gate, shares * (layer + 1))
        for p in range(len(parts)):
            start, end = parts[p, 2], parts[p, 2] + parts[p, 3]
            if start < high and low < end:
                _attend(
                    qkv, parts[p], max(low - start, 0), min(high, end) - start, heads, pairs, keys[layer], values[layer], visible,
                    scores, seen,
                )  # fmt: skip
        _product(seen[low:high], places[layer, 1], halves, heads * size, x.shape[1], x[low:high], _ADD)
        for i in range(low, high):
            _normed(x[i], norms[2 * layer + 1], eps, normed[i])
        _product(normed[low:high], places[layer, 2], halves, hidden, both.shape[1], both[low:high], _SET)
        _gated(both[low:high])
        _product(both[low:high], places[layer, 3], halves, inner, x.shape[1], x[low:high], _ADD)
    _meet(gate, shares * (layers + 1))
    low, high = len(rows) * share // shares, len(rows) * (share + 1) // shares
    for i in range(low, high):
        _normed(x[rows[i]], norms[2 * layers], eps, normed[i])
    if logits.shape[0]:
        _product(normed[low:high], places[layers, 0], halves, hidden, logits.shape[1], logits[low:high], _SET)
    if share:  # what was lent for this forward must not be looked at when the first has gone on
        _arrived(np.int64(gate.ctypes.data))
    else:
        _meet(gate, shares * (layers + 2))


@intrinsic
def _pointer(typing, place):
    """An address as a pointer to anything."""
    return types.voidptr(types.int64), lambda context, builder, _, arguments: builder.inttoptr(arguments[0], _POINTER)


# A box tells the second thread what to do: its ticket, which grows with every forward that is posted; whether the
# thread has stopped looking; then numbers and arrays of the forward. The first two are read and written atomically.
_TICKET, _PARKED, _NUMBERS, _FIRST = 0, 1, 2, 8
_SLOT = 6  # an address and up to five lengths
_BOX = _FIRST + 21 * _SLOT
_LOOKS = np.int64(3000)  # at a box before the thread goes to sleep: about as many microseconds


@njit(nogil=True, cache=True, error_model="numpy")
def _noted(box, slot, array):
    """Note where an array lies, and its shape, in a slot of the box."""
    at = _FIRST + _SLOT * slot
    box[at] = np.int64(array.ctypes.data)
    for n in range(array.ndim):
        box[at + 1 + n] = array.shape[n]


@njit(nogil=True, cache=True, error_model="numpy")
def _post(
    box, tokens, positions, parts, visible, rows, embedding, norms, places, halves, heads, pairs, inner, eps, cos, sin, scales,
    keys, values, x, normed, qkv, seen, both, scores, logits, gate,
):  # fmt: skip
    """Put the second share of a forward into the box; whether the thread has to be woken."""
    box[_NUMBERS], box[_NUMBERS + 1], box[_NUMBERS + 2], box[_NUMBERS + 3] = halves, heads, pairs, inner
    box[_NUMBERS + 4] = _as_bits(eps)
    slot = 0
    for array in literal_unroll((
        tokens, positions, parts, visible, rows, embedding, norms, places, cos, sin, scales, keys, values, x, normed, qkv, seen, both,
        scores, logits, gate,
    )):  # fmt: skip
        _noted(box, slot, array)
        slot += 1
    place = np.int64(box.ctypes.data)
    _arrived(place + 8 * _TICKET)
    return _arrivals(place + 8 * _PARKED) != 0


@njit(nogil=True, cache=True, error_model="numpy")
def _line(box, slot, like):
    at = _FIRST + _SLOT * slot
    return carray(_pointer(box[at]), (box[at + 1],), like)


@njit(nogil=True, cache=True, error_model="numpy")
def _table(box, slot, like):
    at = _FIRST + _SLOT * slot
    return carray(_pointer(box[at]), (box[at + 1], box[at + 2]), like)


@njit(nogil=True, cache=True, error_model="numpy")
def _stored(box, slot):
    at = _FIRST + _SLOT * slot
    return carray(_pointer(box[at]), (box[at + 1], box[at + 2], box[at + 3], box[at + 4], box[at + 5]), np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def _follow(box, done):
    """Do what is posted until nothing has been for a while; the ticket of the last forward that was done."""
    place = np.int64(box.ctypes.data)
    looks = 0
    while True:
        ticket = _arrivals(place + 8 * _TICKET)
        if ticket == done:
            looks += 1
            if looks < _LOOKS:
                _let_others()
                continue
            _arrived(place + 8 * _PARKED)
            if _arrivals(place + 8 * _TICKET) == done:  # posted after that, somebody will wake this thread
                return done
            box[_PARKED] = 0
            continue
        _forward(
            _line(box, 0, np.int64), _line(box, 1, np.int64), _table(box, 2, np.int64), _table(box, 3, np.bool_),
            _line(box, 4, np.int64), _table(box, 5, np.float32), _table(box, 6, np.float32), _table(box, 7, np.int64),
            box[_NUMBERS] != 0, box[_NUMBERS + 1], box[_NUMBERS + 2], box[_NUMBERS + 3], _as_float(np.int32(box[_NUMBERS + 4])),
            _table(box, 8, np.float32), _table(box, 9, np.float32), _line(box, 10, np.float32), _stored(box, 11), _stored(box, 12),
            _table(box, 13, np.float32), _table(box, 14, np.float32), _table(box, 15, np.float32), _table(box, 16, np.float32),
            _table(box, 17, np.float32), _table(box, 18, np.float32), _table(box, 19, np.float32), 1, 2, _line(box, 20, np.int64),
        )  # fmt: skip
        done, looks = ticket, 0


@njit(nogil=True, cache=True, error_model="numpy", fastmath=_SUMS)
def _shares(logits, largest):
    """Sum of e^(x - largest) over logits [vocab], and the same sum with every term times (x - largest)."""
    total = weighted = _ZERO
    for i in range(len(logits)):
        x = _larger(logits[i] - largest, _FLOOR)  # of a probability of 0 the share is 0, and not 0 times minus infinity
        p = _exp(x)
        total += p
        weighted += p * x
    return total, weighted


@njit(nogil=True, cache=True, error_model="numpy")
def _largest(logits, largest):
    for i in range(len(logits)):
        largest = _larger(largest, logits[i])
    return largest


@njit(nogil=True, cache=True, error_model="numpy")
def _stats(logits, stride, vocabulary, mask_id, k, margin, out):
    """`commit_stats` of rows of logits that begin `stride` apart into out [rows, 3 + 2k (+ 1)]."""
    below = np.float32(-np.inf)
    wanted = max(k, 2 if margin else 1)
    ids = np.empty(wanted, np.int64)
    for row in range(len(out)):
        x = logits[row * stride : row * stride + vocabulary]
        best = _largest(x[mask_id + 1 :], _largest(x[:mask_id], below))
        largest = _larger(best, x[mask_id])
        total, weighted = _shares(x, largest)
        out[row, 2] = np.log(total) - weighted / total
        if wanted == 1:
            ids[0] = 1 if mask_id == 0 else 0  # stands where nothing is a number
            for i in range(len(x)):
                if x[i] == best and i != mask_id:
                    ids[0] = i
                    break
        else:
            known = 0
            for i in range(len(x)):
                if i == mask_id or known == wanted and not x[i] > x[ids[known - 1]]:
                    continue
                known = min(known + 1, wanted)
                at = known - 1
                while at and x[i] > x[ids[at - 1]]:
                    ids[at] = ids[at - 1]
                    at -= 1
                ids[at] = i
        out[row, 0] = ids[0]
        out[row, 1] = _exp(x[ids[0]] - largest) / total
        for n in range(k):
            out[row, 3 + n] = ids[n]
            out[row, 3 + k + n] = _exp(x[ids[n]] - largest) / total
        if margin:
            out[row, 3 + 2 * k] = (_exp(x[ids[0]] - largest) - _exp(x[ids[1]] - largest)) / total


def commit_stats(logits: torch.Tensor, mask_id: int, *, candidates: int = 0, margin: bool = False) -> torch.Tensor:
    """As kernels.reference.commit_stats, of float32 logits [rows, vocab] on the CPU; nothing is banned but the mask."""
    rows, vocabulary = logits.shape
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    # As one line: Numba would compile rows that lie apart in another way, which rounds otherwise.
    stride = logits.stride(0)
    line = logits.as_strided(((rows - 1) * stride + vocabulary if rows else 0,), (1,))
    k = min(candidates, vocabulary - 1)
    out = torch.empty((rows, 3 + 2 * k + margin))
    _stats(line.numpy(), stride, vocabulary, mask_id, k, margin, out.numpy())
    return out


@dataclass(frozen=True)
class Layer:
    """Weights of one decoder layer, [outputs, inputs] each, and its norms' [hidden]."""

    input_norm: torch.Tensor
    qkv: torch.Tensor  # queries, keys and values, one below the other
    o: torch.Tensor
    output_norm: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor


class Program:
    """A model's weights, packed, and the compiled forward over them. Safe for several threads.

    Takes float32 weights on the CPU and a head_dim that is a multiple of 16. With two `threads` wide passes use a second
    one as long as that pays; the numbers that come out are the same.
    """

    def __init__(
        self, embedding: torch.Tensor, layers: Sequence[Layer], norm: torch.Tensor, head: torch.Tensor, heads: int, pairs: int, eps: float,
        threads: int = 1,
    ) -> None:  # fmt: skip
        self._embedding = embedding.detach().numpy()
        self._heads, self._pairs, self._eps = heads, pairs, np.float32(eps)
        self._hidden, self._inner, self._vocab = len(norm), layers[0].down.shape[1], len(head)
        matrices = [[[layer.qkv], [layer.o], [layer.gate, layer.up], [layer.down]] for layer in layers] + [[[head]]]
        every = [matrix for row in matrices for parts in row for matrix in parts]
        self._halves = all(torch.equal(matrix, matrix.bfloat16().float()) for matrix in every)
        self._packed = [[np.concatenate([_packed(part, self._halves) for part in parts]) for parts in row] for row in matrices]
        self._places = np.zeros((len(matrices), 4), np.int64)
        for n, row in enumerate(self._packed):
            self._places[n, : len(row)] = [matrix.ctypes.data for matrix in row]
        norms = [weight for layer in layers for weight in (layer.input_norm, layer.output_norm)] + [norm]
        self._norms = torch.stack(norms).detach().numpy()
        self._rooms: list[tuple[list[np.ndarray], np.ndarray]] = []  # that nobody works in; seldom more than one
        self._pace = Pace(threads)

    def __call__(
        self,
        tokens: np.ndarray,  # [total] int64
        positions: np.ndarray,  # [total] int64
        parts: Sequence[tuple[int, int, int, int, int]],  # cache row, its prefix, first token, tokens, CAUSAL ...
        cos: np.ndarray,  # [positions, head_dim] float32
        sin: np.ndarray,  # the same, its first half negative
        scales: np.ndarray,  # [positions] of the queries
        keys: np.ndarray,  # [layers, rows, kv_heads, capacity, head_dim] float32
        values: np.ndarray,
        rows: np.ndarray,  # tokens [n] int64 of which somebody reads something
        visible: np.ndarray | None = None,  # [total, q] bool: what a query of a MASKED part sees of its own part
        head: bool = True,
    ) -> torch.Tensor:
        """Logits [n, vocab] of `rows`, or their normalised last hidden states [n, hidden] without the head.

        Keys and values are written behind each part's prefix, which must have room for them; nobody reads them
        until the caller moves the length over those that are to stay.
        """
        total, count = len(tokens), len(rows)
        room, scores = whole = self._room(total, max(part[1] + part[3] for part in parts), keys.shape[4])
        logits = torch.empty((count if head else 0, _whole(self._vocab)))
        arguments = (
            tokens, positions, np.array(parts, np.int64), _NOTHING if visible is None else visible, rows, self._embedding, self._norms,
            self._places, self._halves, self._heads, self._pairs, self._inner, self._eps, cos, sin, scales, keys, values,
            *[each[:total] for each in room],
        )  # fmt: skip
        written, gate = logits.numpy(), np.zeros(1, np.int64)
        shares = self._pace.threads(total)
        helped = shares == 2 and _HELPER.take()
        began = time.perf_counter()
        if helped:
            _HELPER.post(*arguments, scores[1], written, gate)
        _forward(*arguments, scores[0], written, 0, 2 if helped else 1, gate)
        if helped:
            _HELPER.free()
        if helped == (shares == 2):
            self._pace.note(total, shares, time.perf_counter() - began)
        out = logits[:, : self._vocab] if head else torch.from_numpy(room[1][:count, : self._hidden].copy())
        self._rooms.append(whole)
        return out

    def _room(self, total: int, longest: int, size: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Where a forward may work, and the threads' scores; it grows by doubling, so that decoding never makes it anew."""
        try:
            room = self._rooms.pop()
        except IndexError:  # the first forward, or all rooms are in use by other threads
            room = None
        if room is None or len(room[0][0]) < total or room[1].shape[2] < longest:
            total, longest = (1 << (number - 1).bit_length() for number in (max(total, 64), max(longest, 1024)))
            widths = (
                _whole(self._hidden), _whole(self._hidden), (self._heads + 2 * self._pairs) * size, self._heads * size,
                2 * _whole(self._inner),
            )  # fmt: skip
            room = [np.zeros((total, width), np.float32) for width in widths], np.zeros((2, TALLEST, longest), np.float32)
        return room


class _Helper:
    """The second thread of this process, for all programs; it starts with the first work and ends with the process.

    While forwards come in quick succession it looks out for the next one, offering its core to others all the time;
    to sleep and be woken takes longer than half of a forward.
    """

    def __init__(self) -> None:
        self._process = 0

    def take(self) -> bool:
        """Whether the thread is the caller's now, to be given back with `free`."""
        if self._process != os.getpid():  # a fork leaves threads behind
            self._process, self._turn = os.getpid(), threading.Lock()
            self._box, self._calls = np.zeros(_BOX, np.int64), queue.SimpleQueue()
            self._box[_PARKED] = 1
            threading.Thread(target=self._run, args=(self._box, self._calls), name="forward", daemon=True).start()
        return self._turn.acquire(blocking=False)

    def post(self, *arguments: Any) -> None:
        """Have the thread do its share of a forward; arguments as `_post` has them."""
        if _post(self._box, *arguments):
            self._calls.put(None)

    def free(self) -> None:
        """Give the thread back; its share must have been met."""
        self._turn.release()

    @staticmethod
    def _run(box: np.ndarray, calls: queue.SimpleQueue[None]) -> None:
        done = 0
        while True:
            calls.get()
            box[_PARKED] = 0
            done = _follow(box, done)


_HELPER = _Helper()
_NOTHING = np.zeros((0, 0), np.bool_)


def _whole(width: int) -> int:
    """The next whole number of panels."""
    return -(-width // PANEL) * PANEL


def _packed(weight: torch.Tensor, halves: bool) -> np.ndarray:
    """[outputs, inputs] as [panels, inputs, words]: for every input its weights for the 16 outputs of a panel.

    A word is one float32, or the upper halves of the weights of output j (low) and output 8 + j (high).
    """
    outputs, inputs = weight.shape
    whole = np.zeros((_whole(outputs), inputs), np.float32)
    whole[:outputs] = weight.detach().numpy()
    words = whole.view(np.uint32).reshape(-1, 2, _LANES, inputs)
    if halves:
        words = (words[:, :1] >> 16) | (words[:, 1:] & 0xFFFF0000)
    return np.ascontiguousarray(words.reshape(len(words), -1, inputs).transpose(0, 2, 1))
