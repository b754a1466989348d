#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Quantise a model: `scripts/quantize.py IN.gguf OUT.gguf TYPE`.

IN holds F32, F16 or BF16 weights. TYPE is one of

    F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K      this type throughout
    Q4_K_M Q5_K_M       Q6_K for half of the attn_v and ffn_down tensors, where it helps most

with the exceptions that llama.cpp makes too: matrices only (a vector, a norm or a bias keeps its
type); the output matrix, or the embedding where it serves as output, is Q6_K under every quantised
type but Q8_0; and a row that is no multiple of 256 falls back from Q4_K, Q5_K, Q6_K to Q5_0, Q5_1,
Q8_0, one that is no multiple of 32 to F16.

The five types with blocks of 32 are rounded as ggml's reference functions do, bit for bit. The K
types are found by a search of our own for the smallest weighted squared error, so they decode like
any other file but are not the bytes that llama-quantize writes. The result is the same on every
machine: sums are added in a fixed order and nothing depends on numpy's vector code.
"""
import sys

import numpy as np

import gguf

CHUNK = 1 << 20  # elements quantised at once, which bounds memory
F32 = np.float32

# general.file_type by name, as llama.cpp numbers them.
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_K": 14,
              "Q4_K_M": 15, "Q5_K": 16, "Q5_K_M": 17, "Q6_K": 18, "BF16": 32}
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}

# --- arithmetic that does not depend on the machine ---


def add_up(x):
    """The sum over the last axis, whose length is a power of two, in a fixed order."""
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x[..., 0]


def inverse(x):
    """1/x, and 0 where x is 0."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(x == 0, F32(0), F32(1) / x)


def round_away(x):
    """To the nearest integer, halves away from zero, as roundf does."""
    whole = np.trunc(x)
    return whole + np.where(np.abs(x - whole) >= F32(0.5), np.copysign(F32(1), x), F32(0))


def half(x):
    """float32 to half precision, kept as its bytes (last axis)."""
    with np.errstate(over="ignore"):
        return x.astype("<f2")[..., None].view(np.uint8)


def halved(x):
    """What a float32 is after it was stored in half precision."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(F32)


def nibbles(q):
    """(blocks, 32) to 16 bytes: the first 16 values in the low nibbles, the others in the high."""
    return q[:, :16] & 15 | (q[:, 16:] & 15) << 4


# --- blocks of 32; x is (blocks, 32) float32, the result (blocks, bytes) uint8 ---


def largest(x):
    """The element of largest magnitude of each block, with its sign; the first one of equals."""
    return np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)


def quantize_q8_0(x):
    d = np.abs(x).max(axis=1, keepdims=True) / F32(127)
    q = round_away(x * inverse(d)).astype(np.int8)
    return np.concatenate([half(d[:, 0]), q.view(np.uint8)], axis=1)


def around_zero(x, levels):
    """Scale and values of the symmetric types: the largest element becomes the lowest value."""
    d = largest(x) / F32(-(levels // 2))
    q = (x * inverse(d) + F32(levels // 2 + 0.5)).astype(np.int8)
    return half(d[:, 0]), np.minimum(q, levels - 1).astype(np.uint8)


def from_minimum(x, levels):
    """Scale, minimum and values of the types that store both."""
    low = x.min(axis=1, keepdims=True)
    d = (x.max(axis=1, keepdims=True) - low) / F32(levels - 1)
    q = ((x - low) * inverse(d) + F32(0.5)).astype(np.int8)
    return half(d[:, 0]), half(low[:, 0]), np.minimum(q, levels - 1).astype(np.uint8)


def fifth_bits(q):
    return np.packbits(q >> 4, axis=1, bitorder="little")


def quantize_q4_0(x):
    d, q = around_zero(x, 16)
    return np.concatenate([d, nibbles(q)], axis=1)


def quantize_q4_1(x):
    d, m, q = from_minimum(x, 16)
    return np.concatenate([d, m, nibbles(q)], axis=1)


def quantize_q5_0(x):
    d, q = around_zero(x, 32)
    return np.concatenate([d, fifth_bits(q), nibbles(q)], axis=1)


def quantize_q5_1(x):
    d, m, q = from_minimum(x, 32)
    return np.concatenate([d, m, fifth_bits(q), nibbles(q)], axis=1)


# --- blocks of 256; x is (blocks, 256) float32 ---

# Both searches try a few ranges around the obvious one, round with each, fit the scale (and the
# minimum) to the rounded values by least squares, and keep what leaves the smallest weighted error.
# Large weights count more, as they do for the products.


def fit_scale(x, low, high):
    """Per group of the last axis: s with x ~ s q, q in low..high."""
    weight = x * x
    top = np.take_along_axis(x, np.abs(x).argmax(axis=-1)[..., None], axis=-1)
    best, scale = np.zeros(x.shape[:-1], F32), np.zeros(x.shape[:-1], F32)
    for step in range(-7, 8):
        q = np.clip(np.rint(x * (F32(low + 0.1 * step) * inverse(top))), low, high)
        xq, qq = add_up(weight * x * q), add_up(weight * q * q)
        gain = xq * xq * inverse(qq)  # how much of sum w x^2 this explains
        better = gain > best
        best = np.where(better, gain, best)
        scale = np.where(better, xq * inverse(qq), scale)
    return scale


def fit_range(x, high):
    """Per group of the last axis: s and m with x ~ s q - m, q in 0..high, m not negative."""
    weight = np.abs(x) + np.sqrt(add_up(x * x) * F32(1 / x.shape[-1]))[..., None]
    bottom = np.minimum(x.min(axis=-1), F32(0))[..., None]
    span = x.max(axis=-1)[..., None] - bottom
    w, wx, wxx = add_up(weight), add_up(weight * x), add_up(weight * x * x)
    best = np.full(x.shape[:-1], np.inf, F32)
    scale, minimum = np.zeros(x.shape[:-1], F32), np.zeros(x.shape[:-1], F32)
    for step in range(-5, 11):
        q = np.clip(np.rint((x - bottom) * (F32(high + 0.1 * step) * inverse(span))), 0, high)
        wq, wqq, wqx = add_up(weight * q), add_up(weight * q * q), add_up(weight * q * x)
        det = w * wqq - wq * wq
        s = (w * wqx - wq * wx) * inverse(det)
        m = (wq * wqx - wqq * wx) * inverse(det)
        alone = m < 0  # a minimum above zero cannot be stored: fit the scale by itself
        s, m = np.where(alone, wqx * inverse(wqq), s), np.where(alone, F32(0), m)
        error = (wxx + s * s * wqq + m * m * w + F32(2) * (m * wx - s * wqx - s * m * wq))
        better = (error < best) & (s >= 0)
        best = np.where(better, error, best)
        scale, minimum = np.where(better, s, scale), np.where(better, m, minimum)
    return scale, minimum


def six_bits(scale, minimum):
    """(blocks, 8) of each, 0 to 63, into 12 bytes: see six_bits() in user/compute/quant.c."""
    first, last = slice(0, 4), slice(4, 8)
    return np.concatenate([
        scale[:, first] | scale[:, last] >> 4 << 6,
        minimum[:, first] | minimum[:, last] >> 4 << 6,
        scale[:, last] & 15 | (minimum[:, last] & 15) << 4], axis=1)


def with_minimum(x, high):
    """What Q4_K and Q5_K share: the header's bytes and the values (blocks, 8, 32)."""
    x = x.reshape(-1, 8, 32)
    scale, minimum = fit_range(x, high)
    d, dmin = (halved(a.max(axis=1, keepdims=True) / F32(63)) for a in (scale, minimum))
    sc = np.minimum(np.rint(scale * inverse(d)), 63).astype(np.uint8)
    mn = np.minimum(np.rint(minimum * inverse(dmin)), 63).astype(np.uint8)
    s, m = (d * sc)[..., None], (dmin * mn)[..., None]
    q = np.clip(np.rint((x + m) * inverse(s)), 0, high).astype(np.uint8)
    return [half(d[:, 0]), half(dmin[:, 0]), six_bits(sc, mn)], q


def nibble_pairs(q):
    """(blocks, 8, 32): group 2i in the low nibbles of 32 bytes, group 2i + 1 in the high ones."""
    pairs = q.reshape(-1, 4, 2, 32)
    return (pairs[:, :, 0] & 15 | (pairs[:, :, 1] & 15) << 4).reshape(-1, 128)


def quantize_q4_k(x):
    head, q = with_minimum(x, 15)
    return np.concatenate(head + [nibble_pairs(q)], axis=1)


def quantize_q5_k(x):
    head, q = with_minimum(x, 31)
    # Bit i of byte j is that of group i, element j.
    high = np.packbits(q >> 4, axis=1, bitorder="little")[:, 0]
    return np.concatenate(head + [high, nibble_pairs(q)], axis=1)


def quantize_q6_k(x):
    x = x.reshape(-1, 16, 16)
    scale = fit_scale(x, -32, 31)
    top = np.take_along_axis(scale, np.abs(scale).argmax(axis=1)[:, None], axis=1)
    d = halved(top / F32(-128))
    sc = np.clip(np.rint(scale * inverse(d)), -128, 127).astype(np.int8)
    q = np.clip(np.rint(x * inverse((d * sc)[..., None])), -32, 31).astype(np.int8) + np.int8(32)
    g = q.view(np.uint8).reshape(-1, 2, 4, 32)  # halves of four groups
    low = np.concatenate([g[:, :, 0] & 15 | (g[:, :, 2] & 15) << 4,
                          g[:, :, 1] & 15 | (g[:, :, 3] & 15) << 4], axis=2)
    high = g[:, :, 0] >> 4 | g[:, :, 1] >> 4 << 2 | g[:, :, 2] >> 4 << 4 | g[:, :, 3] >> 4 << 6
    return np.concatenate([low.reshape(-1, 128), high.reshape(-1, 64), sc.view(np.uint8),
                           half(d[:, 0])], axis=1)


BLOCKS = {"Q8_0": quantize_q8_0, "Q4_0": quantize_q4_0, "Q4_1": quantize_q4_1,
          "Q5_0": quantize_q5_0, "Q5_1": quantize_q5_1,
          "Q4_K": quantize_q4_k, "Q5_K": quantize_q5_k, "Q6_K": quantize_q6_k}


def quantize(values, type_):
    """A float32 array as the bytes of a tensor of that type."""
    if type_ == "F32":
        return values.astype("<f4")
    if type_ == "F16":
        with np.errstate(over="ignore"):
            return values.astype("<f2")
    if type_ == "BF16":
        return gguf.to_bf16(values)
    x = values.reshape(-1, gguf.TYPES[type_][1])
    rows = CHUNK // x.shape[1]
    return np.concatenate([BLOCKS[type_](x[i:i + rows]) for i in range(0, len(x), rows)])


# --- which tensor gets which type ---


def more_bits(layer, layers):
    """The first and last eighth of the layers, and every third one between."""
    return (layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2)


def choose(t, kind, layers, tied):
    """The type of tensor t under the given TYPE."""
    if len(t.shape) < 2 or not t.name.endswith(".weight") or "_norm." in t.name:
        return t.type
    base = kind[:-2] if kind.endswith("_M") else kind
    if base in ("F32", "F16", "BF16"):
        return base
    type_ = base
    if t.name == ("token_embd.weight" if tied else "output.weight"):
        type_ = "Q8_0" if base == "Q8_0" else "Q6_K"
    elif kind.endswith("_M") and t.name.endswith((".attn_v.weight", ".ffn_down.weight")):
        if more_bits(int(t.name.split(".")[1]), layers):
            type_ = "Q6_K"
    if t.shape[-1] % gguf.TYPES[type_][1]:
        type_ = FALLBACK.get(type_, type_)
    return "F16" if t.shape[-1] % gguf.TYPES[type_][1] else type_


def quantize_file(source, target, kind):
    model = gguf.read(source)
    layers = int(model.metadata.get(model.metadata["general.architecture"] + ".block_count", 0))
    tied = model.find("output.weight") is None
    tensors = []
    for t in model.tensors:
        type_ = choose(t, kind, layers, tied)
        make = lambda t=t, type_=type_: quantize(t.values(), type_)
        tensors.append(t if type_ == t.type else gguf.Tensor(t.name, type_, t.shape, make))
    metadata = dict(model.metadata)
    metadata["general.file_type"] = FILE_TYPES[kind]
    if kind not in ("F32", "F16", "BF16"):
        metadata["general.quantization_version"] = 2
    gguf.write(target, metadata, tensors)


def main():
    if len(sys.argv) != 4 or sys.argv[3] not in FILE_TYPES:
        print("usage: scripts/quantize.py IN.gguf OUT.gguf TYPE; types:", *FILE_TYPES,
              file=sys.stderr)
        return 2
    try:
        quantize_file(*sys.argv[1:])
    except (OSError, ValueError) as e:
        print("quantize.py: %s" % e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
