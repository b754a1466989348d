#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Check a context against docs/protocol.md, without any of lslm's code.

    scripts/lskv.py CONTEXT.lskv [--trust PUBLIC_KEY] [--model MODEL.gguf]

Reads the file by the document's byte tables, recomputes the key from identity and tokens and the
digest of every block, verifies the signature, and with --model the model's fingerprint. Prints what
it found and exits 0, or prints one line and exits 1. It is the second implementation that keeps the
document honest; standard library only, Ed25519 after RFC 8032 included.
"""
import argparse
import hashlib
import struct
import sys

BLOCK_TOKENS = 64
HEADER = struct.Struct("<8sIIQIIIIIIIIQQ32s32s32s32s32s32s32s")
SECTION = struct.Struct("<IIQ")
FILE_HEADER = struct.Struct("<8sIIQQQ24s")
LEVELS = {0: "f16", 1: "q8", 2: "q4", 3: "e", 4: "p"}
LEVEL_ALIGN = 4096


class Refused(Exception):
    """The bytes are no valid context; the text says why."""


def need(condition, line):
    if not condition:
        raise Refused(line)


def blake(data):
    return hashlib.blake2b(data, digest_size=32).digest()


def domain(text):
    return struct.pack("<I", len(text)) + text


def up(n, step):
    return -(-n // step) * step


def half_bytes(level, n_head_kv, head_dim):
    """K or V of a block, at f16, q8 and q4; None where lengths are in the manifest."""
    rows = BLOCK_TOKENS * n_head_kv
    groups = up(head_dim, 32) // 32
    sizes = [min(32, head_dim - 32 * g) for g in range(groups)]
    if level == 0:
        return up(2 * rows * head_dim, 64)
    if level == 1:
        return up(rows * (head_dim + 2 * groups), 64)
    if level == 2:
        return up(rows * (sum((n + 1) // 2 for n in sizes) + 2 * groups), 64)
    return None


# Keys

def key_chain(identity, tokens):
    """The key of every full block in turn, and at last that of the context."""
    keys = [blake(domain(b"lslm key v1") + struct.pack("<I", 1) + b"".join(identity))]
    for i in range(0, len(tokens), BLOCK_TOKENS):
        part = tokens[i:i + BLOCK_TOKENS]
        keys.append(blake(domain(b"lslm link v1") + keys[-1] + struct.pack("<I", len(part)) +
                          struct.pack("<%di" % len(part), *part)))
    return keys


# Ed25519 verification. Points are (X, Y, Z, T), x = X/Z, y = Y/Z, xy = T/Z.

P = 2 ** 255 - 19
ORDER = 2 ** 252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def point(encoded):
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2 ** 255 - 1)
    need(y < P, "signature: no point of the curve")
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * ROOT % P
    need(x * x % P == square and (x or not sign), "signature: no point of the curve")
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(n, p):
    total = (0, 1, 1, 0)
    while n:
        if n & 1:
            total = add(total, p)
        p = add(p, p)
        n >>= 1
    return total


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signature_is_right(public, message, signature):
    try:
        a, r = point(public), point(signature[:32])
    except Refused:
        return False
    s = int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little")
    left, right = times(s, BASE), add(r, times(h % ORDER, a))
    return s < ORDER and (left[0] * right[2] - right[0] * left[2]) % P == 0 and \
        (left[1] * right[2] - right[1] * left[2]) % P == 0


# Manifest

class Manifest:
    """A parsed manifest; .levels is {number: [[(offset, length, digest) of each unit] of each stripe]}."""

    def __init__(self, data):
        need(len(data) >= HEADER.size + 64, "is no manifest: %d bytes" % len(data))
        (magic, version, header_bytes, size, flags, block_tokens, self.n_layer, self.n_head_kv,
         self.head_dim, n_tokens, self.n_stripes, reserved, self.area_bytes, self.created,
         *hashes) = HEADER.unpack_from(data)
        *self.identity, self.key, self.publisher = hashes
        need(magic == b"LSLMMANI" and version == 1, "is no manifest of version 1")
        need(header_bytes == HEADER.size and size == len(data) and flags == 0 and reserved == 0 and
             block_tokens == BLOCK_TOKENS, "manifest: header")
        need(1 <= self.n_layer <= 1024 and 1 <= self.n_head_kv <= 1024 and
             1 <= self.head_dim <= 1024, "manifest: geometry")
        need(1 <= n_tokens <= 1 << 24 and self.n_stripes == n_tokens // BLOCK_TOKENS,
             "manifest: tokens and stripes")
        self.title, self.tokens, self.levels, self.evaluation, self.run = "", None, {}, None, (0, 0, 0)
        self.end = 0
        self.signed, self.signature = data[:-64], data[-64:]
        self._find_run(data[HEADER.size:-64])
        self._sections(data[HEADER.size:-64], n_tokens)
        need(self.tokens is not None and self.levels, "manifest: no tokens or no level")
        need(self.key == key_chain(self.identity, self.tokens)[-1], "manifest: key")

    def _sections(self, data, n_tokens):
        at, last, skipped = 0, 0, False
        while at < len(data):
            need(len(data) - at >= SECTION.size, "manifest: rest after the last section")
            kind, flags, length = SECTION.unpack_from(data, at)
            at += SECTION.size
            end = at + length + -length % 8
            need(end <= len(data) and not any(data[at + length:end]) and flags in (0, 1),
                 "manifest: section %d" % kind)
            need(kind > last or kind == last and kind not in (1, 2, 4, 5), "manifest: order of sections")
            payload, at, last = data[at:at + length], end, kind
            need(kind != 3 or length >= 16, "manifest: size of a level")
            if kind in (1, 2):
                need(flags == kind - 1, "manifest: flags of section %d" % kind)
            if kind == 1:
                self.title = payload.decode("utf-8")
                need(1 <= length <= 127, "manifest: length of the title")
            elif kind == 2:
                need(length == 4 * n_tokens, "manifest: bytes of tokens")
                self.tokens = list(struct.unpack("<%di" % n_tokens, payload))
                need(min(self.tokens) >= 0, "manifest: negative token")
            elif kind == 3 and (flags or struct.unpack_from("<I", payload)[0] in LEVELS):
                self._level(payload)
            elif kind == 4:
                need(flags == 0 and any(self.identity[3]), "manifest: an evaluation, and no map")
                self._evaluation(payload)
            elif kind == 5:
                need(flags == 1 and any(self.identity[3]), "manifest: flags of the run")
            else:
                need(not flags, "manifest: unknown section %d" % kind)
                skipped = True
        need(self.area_bytes == self.end or skipped and self.end < self.area_bytes < 1 << 62,
             "manifest: area")

    def _find_run(self, data):
        """Of which layers a stripe consists, and of which E block: read before all levels."""
        at = 0
        while len(data) - at >= SECTION.size:
            kind, _, length = SECTION.unpack_from(data, at)
            if kind == 5:
                need(length == 16 and len(data) - at >= 32, "manifest: size of the run")
                first, end, hidden, reserved = struct.unpack_from("<4I", data, at + 16)
                need(first < end <= self.n_layer and end - first < self.n_layer and reserved == 0 and
                     (first > 0) == (hidden > 0) and hidden % 32 == 0 and hidden <= 1 << 16, "manifest: run")
                self.run = (first, end, hidden)
            at += SECTION.size + length + -length % 8
        first, end, hidden = self.run
        self.blocks = self.n_layer - (end - first) + (hidden > 0)

    def unit_bytes(self, level, unit):
        """Of a block in memory at f16, q8 or q4; the first one may be the hidden state."""
        hidden = self.run[2]
        if hidden and not unit:
            return half_bytes(min(level, 1), hidden // 32, 32)
        return 2 * half_bytes(level, self.n_head_kv, self.head_dim)

    def _evaluation(self, payload):
        need(len(payload) >= 8 and not any(payload[4:8]), "manifest: evaluation")
        if payload[:4] != struct.pack("<I", 1):
            return
        need(len(payload) == 64, "manifest: size of the evaluation")
        metric, contexts, observations, bar, alone, mapped, gain, low, high = struct.unpack_from("<4I5d", payload, 8)
        need(metric in (1, 2) and contexts <= observations and bar in (0, 1) and low <= gain <= high and
             all(abs(x) < float("inf") for x in (alone, mapped, gain, low, high)) and
             (metric == 2 or 0 <= alone <= 1 and 0 <= mapped <= 1), "manifest: evaluation")
        self.evaluation = (metric, contexts, observations, alone, mapped, gain, low, high)

    def _level(self, payload):
        level, unit, reserved = struct.unpack_from("<IIQ", payload)
        need(level in LEVELS and level > max(self.levels, default=-1) and unit == (level == 4) and
             reserved == 0, "manifest: level %d" % level)
        n = self.n_stripes
        units = 1 if unit else self.blocks
        plain = level < 3
        at = 16 if plain else 48  # e and p name their calibration
        digests, lengths = at + 16 * n, at + 16 * n + 32 * n * units
        need(len(payload) == lengths + (0 if plain else 4 * n * units), "manifest: size of a level")
        stripes, end = [], up(self.end, LEVEL_ALIGN)
        for s in range(n):
            stripe, start = [], end
            for u in range(s * units, (s + 1) * units):
                most = sum(self.unit_bytes(0, b) for b in (range(self.blocks) if unit else [u % units]))
                length = self.unit_bytes(level, u % units) if plain else \
                    struct.unpack_from("<I", payload, lengths + 4 * u)[0]
                need(0 < length <= 2 * most, "manifest: length of a unit")
                stripe.append((end, length, payload[digests + 32 * u:digests + 32 * u + 32]))
                end += length
            need(struct.unpack_from("<QQ", payload, at + 16 * s) == (start, end - start),
                 "manifest: places of stripes")
            stripes.append(stripe)
        self.levels[level], self.end = stripes, end

    def check_signature(self):
        need(signature_is_right(self.publisher, b"lslm manifest signature v1" + blake(self.signed),
                                self.signature), "manifest: signature")


# The .lskv file

class Context:
    """A whole file; raises Refused for anything the document does not allow."""

    def __init__(self, data):
        need(len(data) >= FILE_HEADER.size, "is no .lskv file: %d bytes" % len(data))
        (magic, version, header_bytes, size, area, area_bytes,
         reserved) = FILE_HEADER.unpack_from(data)
        need(magic == b"LSLMLSKV" and version == 1 and header_bytes == 64 and not any(reserved),
             "is no .lskv file of version 1")
        need(area == -(-(64 + size) // 4096) * 4096 and len(data) == area + area_bytes,
             "file: sizes")
        need(not any(data[64 + size:area]), "file: data between manifest and stripes")
        self.manifest = m = Manifest(data[64:64 + size])
        need(m.area_bytes == area_bytes, "file: area")
        m.check_signature()
        self.area = area
        for level, stripes in m.levels.items():
            for s, stripe in enumerate(stripes):
                for unit, (offset, length, digest) in enumerate(stripe):
                    need(blake(data[area + offset:area + offset + length]) == digest,
                         "level %s: block %d of stripe %d is damaged" % (LEVELS[level], unit, s))


# Model fingerprint

SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
         12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2)}


def value_end(data, kind, at):
    """Where a GGUF value of this type that starts at `at` ends."""
    if kind == 8:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind != 9:
        return at + SCALARS[kind]
    element, n = struct.unpack_from("<IQ", data, at)
    at += 12
    if element in SCALARS:
        return at + n * SCALARS[element]
    for _ in range(n):
        at = value_end(data, element, at)
    return at


def gguf_parts(data):
    """({key: raw value with its type}, {tensor name: (type, dimensions, data)}) of a GGUF file."""
    magic, _, n_tensors, n_keys = struct.unpack_from("<4sIQQ", data)
    need(magic == b"GGUF", "model: is no GGUF")
    at, keys, infos, tensors = 24, {}, [], {}
    for _ in range(n_keys):
        end = value_end(data, 8, at)
        key, at = bytes(data[at + 8:end]), end
        end = value_end(data, struct.unpack_from("<I", data, at)[0], at + 4)
        keys[key], at = bytes(data[at:end]), end
    for _ in range(n_tensors):
        end = value_end(data, 8, at)
        name, at = bytes(data[at + 8:end]), end
        n_dims = struct.unpack_from("<I", data, at)[0]
        dims = struct.unpack_from("<%dQ" % n_dims, data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * n_dims)
        infos.append((name, kind, dims, offset))
        at += 16 + 8 * n_dims
    raw = keys.get(b"general.alignment")
    align = struct.unpack("<I", raw[4:8])[0] if raw else 32
    start = -(-at // align) * align
    for name, kind, dims, offset in infos:
        n = 1
        for d in dims:
            n *= d
        per, size = TYPES[kind]
        tensors[name] = (kind, dims, data[start + offset:start + offset + n // per * size])
    return keys, tensors


def model_fingerprint(data):
    keys, tensors = gguf_parts(data)
    prefix = keys[b"general.architecture"][12:] + b"."
    general = (b"general.architecture", b"general.quantization_version")
    covered = sorted(k for k in keys if k in general or k.startswith(prefix))
    h = hashlib.blake2b(domain(b"lslm model v1"), digest_size=32)
    h.update(struct.pack("<I", len(covered)))
    for key in covered:
        h.update(domain(key) + struct.pack("<Q", len(keys[key])) + keys[key])
    h.update(struct.pack("<I", len(tensors)))
    for name in sorted(tensors):
        kind, dims, values = tensors[name]
        h.update(domain(name) + struct.pack("<II%dQQ" % len(dims), kind, len(dims), *dims,
                                            len(values)))
        h.update(values)
    return h.digest()


def load(path):
    with open(path, "rb") as f:
        return memoryview(f.read())


def main():
    parser = argparse.ArgumentParser(description="check a context against docs/protocol.md")
    parser.add_argument("context")
    parser.add_argument("--trust", help="public key that must have signed it")
    parser.add_argument("--model", help="GGUF that it must have been made with")
    args = parser.parse_args()
    try:
        m = Context(bytes(load(args.context))).manifest
        need(not args.trust or m.publisher.hex() == args.trust.lower(),
             "signed by another publisher")
        need(not args.model or m.identity[0] == model_fingerprint(load(args.model)),
             "made with another model")
    except (Refused, UnicodeDecodeError, OSError) as e:
        print("lskv.py: %s: %s" % (args.context, e), file=sys.stderr)
        return 1
    for name, value in zip(("model", "tokenizer", "rope", "map", "salt"), m.identity):
        print("%-10s %s" % (name, value.hex()))
    print("key        %s\npublisher  %s\ntitle      %s\ntokens     %d\nstripes    %d of %d bytes\n"
          "levels     %s" % (m.key.hex(), m.publisher.hex(), m.title, len(m.tokens), m.n_stripes,
                             sum(m.unit_bytes(0, u) for u in range(m.blocks)), " ".join(LEVELS[x] for x in m.levels)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
