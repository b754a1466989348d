#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Make synthetic models: `scripts/make_model.py NAME OUT.gguf`, or no arguments for the list.

Tests need every architecture variant, benchmarks need real shapes, and neither needs meaning. The
weights here are noise, scaled so that a forward pass stays in the range of a trained model: the
attention is neither flat nor saturated, every norm weight and bias matters, and the next-token
distribution has a clear best token. So an engine that forgets a bias, swaps the rope layout or
mixes up heads is far off.

The plain models are lively, so that greedy decoding does not fall into a loop at once. That also
amplifies rounding: llama.cpp, which rounds activations to 8 bits where weights are quantised, is a
KL divergence of 5e-3 away from exact arithmetic there. The calm- models are for quantised weights;
there it is 4e-4, while a wrong block format is still 10 to 1000 times that.

The same name gives the same bytes on every machine: weights come from an integer hash (splitmix64
over a counter, keyed by model and tensor name) through exact arithmetic only, never from numpy's
generators or libm. tests/models/SHA256SUMS pins that, since the reference outputs there
were made from these very files.
"""
import hashlib
import sys

import numpy as np

import gguf

# Shapes by name. heads = (query, key/value). What is not given has the value in DEFAULTS.
DEFAULTS = {
    "arch": "llama", "dim": 128, "ffn": 256, "layers": 3, "heads": (4, 4), "head_dim": None,
    "vocab": ("spm", 320), "pre": None, "tied": False, "theta": 10000.0, "context": 1024,
    "eps": 1e-5, "bias": False, "qk_norm": False, "linear": None, "factors": None, "type": "F32",
    "gain": {"qk": 1.2, "vo": 1.2, "ffn": 1.2, "out": 2.5},
}
CALM = {"qk": 0.9, "vo": 1.2, "ffn": 0.7, "out": 1.7}
MODELS = {
    # For the tests. Rows of llama and qwen2 are multiples of 256, those of the others are not.
    "llama": {"dim": 256, "ffn": 512, "heads": (8, 2)},
    "llama3": {"heads": (4, 2), "vocab": ("bpe", 384), "pre": "llama-bpe", "tied": True,
               "theta": 500000.0, "factors": True},
    "linear": {"dim": 96, "ffn": 224, "heads": (6, 6), "linear": 4.0},
    "mistral": {"heads": (4, 2), "head_dim": 48, "theta": 1000000.0},
    "smollm2": {"dim": 192, "ffn": 512, "heads": (6, 2), "vocab": ("bpe", 384), "pre": "smollm",
                "tied": True, "theta": 100000.0},
    "odd": {"dim": 72, "ffn": 100, "layers": 2, "heads": (3, 1), "vocab": ("spm", 323)},
    "qwen2": {"arch": "qwen2", "dim": 256, "ffn": 512, "heads": (8, 2), "vocab": ("bpe", 384),
              "pre": "qwen2", "tied": True, "theta": 1000000.0, "eps": 1e-6, "bias": True},
    "qwen3": {"arch": "qwen3", "heads": (4, 2), "head_dim": 64, "vocab": ("bpe", 384),
              "pre": "qwen2", "tied": True, "theta": 1000000.0, "eps": 1e-6, "qk_norm": True},
    "calm-llama": {"dim": 256, "ffn": 512, "heads": (8, 2), "gain": CALM},
    "calm-smollm2": {"dim": 192, "ffn": 512, "heads": (6, 2), "vocab": ("bpe", 384), "tied": True,
                     "pre": "smollm", "theta": 100000.0, "gain": CALM},
    "calm-qwen2": {"arch": "qwen2", "dim": 256, "ffn": 512, "heads": (8, 2), "vocab": ("bpe", 384),
                   "pre": "qwen2", "tied": True, "theta": 1000000.0, "eps": 1e-6, "bias": True,
                   "gain": CALM},
    "calm-qwen3": {"arch": "qwen3", "heads": (4, 2), "head_dim": 64, "vocab": ("bpe", 384),
                   "pre": "qwen2", "tied": True, "theta": 1000000.0, "eps": 1e-6, "qk_norm": True,
                   "gain": CALM},
    # For the benchmarks: the shapes of known models.
    "tinyllama-1.1b": {"dim": 2048, "ffn": 5632, "layers": 22, "heads": (32, 4),
                       "vocab": ("spm", 32000), "context": 2048, "type": "F16"},
    "smollm2-135m": {"dim": 576, "ffn": 1536, "layers": 30, "heads": (9, 3),
                     "vocab": ("bpe", 49152), "pre": "smollm", "tied": True, "theta": 100000.0,
                     "context": 8192, "type": "F16"},
}

# --- numbers ---


def hashed(key, n):
    """n 64-bit words: splitmix64 of a counter that starts at a hash of the key."""
    start = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
    z = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(start)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def noise(key, shape, std):
    """Bell-shaped float32 numbers: four 16-bit uniforms added up, exact until the one product."""
    n = int(np.prod(shape))
    words = hashed(key, n).view(np.uint16).reshape(n, 4).astype(np.int32)
    total = words[:, 0] + words[:, 1] + words[:, 2] + words[:, 3] - 2 * 65535
    unit = np.float64(std) * (3.0 ** 0.5 / 65536.0)  # four uniforms have variance 65536^2 / 3
    return (total * unit).astype(np.float32).reshape(shape)


def token_ids(key, n, vocab):
    """A sequence to feed: BOS (id 1), then ordinary ids; one in four repeats the id 8 before."""
    words = hashed(key, n)
    ids = [1]
    for i in range(1, n):
        word = int(words[i])
        repeat = i > 8 and word % 4 == 0
        ids.append(ids[i - 8] if repeat else 3 + (word >> 8) % (vocab - 3))
    return ids


# --- vocabularies ---


def words_of_letters():
    """aa, ab, ... zz, aaa, ...: every one is an earlier one, or a letter, plus a letter."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    level = list(letters)
    while True:
        level = [w + c for w in level for c in letters]
        yield from level


def spm_vocab(size):
    """A SentencePiece vocabulary: specials, bytes, the space, letters, then words of letters."""
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]
    types = [2, 3, 3] + [6] * 256
    tokens += ["\u2581"] + list("etaoinshrdlucmfwypvbgkjqxz.,!?0123456789")
    for word in words_of_letters():
        if len(tokens) >= size:
            break
        tokens.append(word)
    tokens = tokens[:size]
    types += [1] * (size - len(types))
    scores = [0.0] * 259 + [-float(i) for i in range(size - 259)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


def byte_letters():
    """GPT-2's letters for the bytes: printable ones are themselves, the others from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(0x100 + i) for i in range(len(others))]


def bpe_vocab(size, pre):
    """A byte-level BPE vocabulary: three specials, the bytes, then words with their merges."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = specials + byte_letters()
    merges = []
    for word in words_of_letters():
        if len(tokens) >= size:
            break
        tokens.append(word)
        merges.append("%s %s" % (word[:-1], word[-1]))
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3] * 3 + [1] * (len(tokens) - 3), np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
    }


# --- a model ---


def metadata(name, m):
    arch, head_dim = m["arch"], m["head_dim"]
    kind, size = m["vocab"]
    meta = {
        "general.architecture": arch,
        "general.name": "lslm-test-" + name,
        "general.file_type": {"F32": 0, "F16": 1}[m["type"]],
        arch + ".context_length": m["context"],
        arch + ".embedding_length": m["dim"],
        arch + ".feed_forward_length": m["ffn"],
        arch + ".block_count": m["layers"],
        arch + ".attention.head_count": m["heads"][0],
        arch + ".attention.head_count_kv": m["heads"][1],
        arch + ".attention.layer_norm_rms_epsilon": m["eps"],
        arch + ".rope.freq_base": m["theta"],
    }
    if head_dim:
        meta[arch + ".attention.key_length"] = head_dim
        meta[arch + ".attention.value_length"] = head_dim
    if arch == "llama":
        meta["llama.rope.dimension_count"] = head_dim or m["dim"] // m["heads"][0]
        meta["llama.vocab_size"] = size
    if m["linear"]:
        meta[arch + ".rope.scaling.type"] = "linear"
        meta[arch + ".rope.scaling.factor"] = m["linear"]
    meta.update(spm_vocab(size) if kind == "spm" else bpe_vocab(size, m["pre"]))
    return meta


def shapes(m):
    """(name, shape, standard deviation, mean) of every tensor, in the file's order."""
    dim, ffn, vocab, gain = m["dim"], m["ffn"], m["vocab"][1], m["gain"]
    head_dim = m["head_dim"] or dim // m["heads"][0]
    q, kv = (h * head_dim for h in m["heads"])

    def matrix(name, rows, columns, kind):
        return name + ".weight", (rows, columns), gain[kind] * columns ** -0.5, 0.0

    def norm(name, length):
        return name + ".weight", (length,), 0.2, 1.0

    yield matrix("token_embd", vocab, dim, "out")
    yield norm("output_norm", dim)
    if not m["tied"]:
        yield matrix("output", vocab, dim, "out")
    if m["factors"]:
        yield "rope_freqs.weight", (head_dim // 2,), None, None
    for i in range(m["layers"]):
        blk = "blk.%d." % i
        yield norm(blk + "attn_norm", dim)
        for part, rows, kind in ("q", q, "qk"), ("k", kv, "qk"), ("v", kv, "vo"):
            yield matrix(blk + "attn_" + part, rows, dim, kind)
            if m["bias"]:
                yield blk + "attn_%s.bias" % part, (rows,), 0.5, 0.0
        if m["qk_norm"]:
            yield norm(blk + "attn_q_norm", head_dim)
            yield norm(blk + "attn_k_norm", head_dim)
        yield matrix(blk + "attn_output", dim, q, "vo")
        yield norm(blk + "ffn_norm", dim)
        yield matrix(blk + "ffn_gate", ffn, dim, "ffn")
        yield matrix(blk + "ffn_up", ffn, dim, "ffn")
        yield matrix(blk + "ffn_down", dim, ffn, "ffn")


def rope_factors(n):
    """As Llama 3 has them in form: 1 for the fast pairs, a ramp, 8 for the slow ones."""
    first, last = n // 3, n - n // 4
    ramp = [1.0 + 7.0 * (i - first) / (last - first) for i in range(n)]
    return np.array([min(8.0, max(1.0, x)) for x in ramp], np.float32)


def make_tensor(model, m, name, shape, std, mean):
    if std is None:
        return gguf.tensor(name, rope_factors(shape[0]))
    type_ = m["type"] if len(shape) > 1 else "F32"

    def values():
        weights = noise("%s/%s" % (model, name), shape, std) + np.float32(mean)
        return weights.astype("<f4" if type_ == "F32" else "<f2")
    return gguf.Tensor(name, type_, shape, values)


def make(name, path):
    """Write the model of that name."""
    m = {**DEFAULTS, **MODELS[name]}
    gguf.write(path, metadata(name, m), [make_tensor(name, m, *s) for s in shapes(m)])


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in MODELS:
        print("usage: scripts/make_model.py NAME OUT.gguf; names:", *MODELS, file=sys.stderr)
        return 2
    make(sys.argv[1], sys.argv[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
