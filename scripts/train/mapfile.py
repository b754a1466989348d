# SPDX-License-Identifier: MIT
"""Map files (user/codec/map.h) in Python: reading and writing."""
import hashlib
import struct
from dataclasses import dataclass, field

import numpy as np

MAGIC = b"LSLM map"
TABLE = 192


@dataclass
class Part:
    """y = keep * own + x[first .. first + count] (a @ b) + bias; b is None where a is all of W."""
    first: int
    count: int
    keep: float
    bias: np.ndarray
    a: np.ndarray
    b: np.ndarray = None

    @property
    def rank(self):
        return 0 if self.b is None else self.b.shape[0]


@dataclass
class Map:
    source: tuple    # layers, KV heads, head size
    target: tuple
    hashes: bytes    # fingerprints of both models and of the tokenizer
    parts: list = field(default_factory=list)    # of each target layer, keys then values
    evaluation: bytes = bytes(56)


def evaluation(alone, mapped, low, high, no_worse=False):
    """Of 80 questions on 8 contexts, shares of exact answers, as user/kv/proof.h encodes it. low, high: of the gain."""
    return struct.pack("<4I5d", 1, 8, 80, int(no_worse), alone, mapped, mapped - alone, low, high)


def change_weights(path, to):
    """A relative of a model: its GGUF with other weights in a few places, and so with another fingerprint."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    for index in range(2000):
        data[-2 - 64 * index] ^= 1
    with open(to, "wb") as file:
        file.write(data)


def digest(body):
    domain = b"lslm map v1"
    return hashlib.blake2b(struct.pack("<I", len(domain)) + domain + body, digest_size=32).digest()


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    body = data[:-32]
    if data[:8] != MAGIC or digest(body) != data[-32:]:
        raise ValueError(f"{path}: not a map, or damaged")
    if body[8:12] != struct.pack("<I", 1):
        raise ValueError(f"{path}: a map that takes layers as they are")
    source, target = struct.unpack_from("<3I", body, 16), struct.unpack_from("<3I", body, 28)
    out = Map(source, target, body[40:136], [], body[136:TABLE])
    at = TABLE + 32 * target[0]
    wide, n_out = 2 * source[1] * source[2], target[1] * target[2]

    def take(*shape):
        nonlocal at
        count = int(np.prod(shape))
        values = np.frombuffer(body, "<f4", count, at).reshape(shape).copy()
        at += 4 * count
        return values

    for index in range(2 * target[0]):
        first, count, rank, keep = struct.unpack_from("<3If", body, TABLE + 16 * index)
        bias = take(n_out)
        a = take(count * wide, rank or n_out)
        out.parts.append(Part(first, count, keep, bias, a, take(rank, n_out) if rank else None))
    return out


def write(path, what):
    head = MAGIC + struct.pack("<II", 1, 0) + struct.pack("<6I", *what.source, *what.target)
    table = b"".join(struct.pack("<3If", p.first, p.count, p.rank, p.keep) for p in what.parts)
    weights = [values.astype("<f4").tobytes() for p in what.parts
               for values in (p.bias, p.a, p.b) if values is not None]
    body = head + what.hashes + what.evaluation + table + b"".join(weights)
    with open(path, "wb") as file:
        file.write(body + digest(body))


def write_run(path, like, first, end, hidden, evaluation):
    """A file that takes a relative's layers as they are, but for first .. end - 1; models and geometry are those of a map."""
    head = MAGIC + struct.pack("<II", 2, 0) + struct.pack("<6I", *like.target, *like.target)
    body = head + like.hashes + evaluation + struct.pack("<4I", first, end, hidden, 0)
    with open(path, "wb") as file:
        file.write(body + digest(body))
