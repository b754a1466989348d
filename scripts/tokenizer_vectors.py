#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Make tests/unit/tokenizer_vectors/: small vocabularies and the ids that llama.cpp gives with them.

    scripts/tokenizer_vectors.py .../llama-tokenize [--gguf DIR]

Two vocabularies are trained here, from fixed seeds, on text that has every kind of character next to
every other kind, and without cutting it into words first: so there are merges across every
place where a pre-tokenizer may cut, and a cut in another place shows as other ids. The byte-level one is
used with each pre-tokenizer in turn.

A file is {"tokens": [[text, type, score], ...], "merges": [...], "cases": [...]}; a token's text is in
the vocabulary's own spelling, types are those of GGUF, scores and merges stand where the family has
them. A case is {"text", "special" (are special tokens parsed?), "ids": {pre-tokenizer: [...]}}; the
name for SentencePiece is "". No BOS is added. --gguf keeps the GGUF files, for other comparisons.

Also makes tests/fuzz/seeds/tokenizer/, in the form that tests/fuzz/tokenizer_fuzz.c describes.
"""
import argparse
import collections
import json
import os
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import gguf  # pylint: disable=wrong-import-position

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PRES = ["gpt-2", "llama-bpe", "qwen2", "smollm", "starcoder", "falcon"]
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)

# What text is made of. Atoms of all classes, so that each pair of neighbours occurs.
ATOMS = [
    " ", " ", " ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "'", "'s", "'T", "'re", "'LL", "a", "the", "Stop", "é", "ß", "привет",
    "中文", "ก็", "1", "22", "2024", "½", "٣", "Ⅳ", ".", ",", "!?", "(", "-", "_", "$", "+", "=", "`", "~", "€", "©", "“", "…",
    "e\u0301", "\u200b", "😀", "👩\u200d👧", "\u0378",
]
SPECIAL = [
    ("<|endoftext|>", CONTROL), ("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<|end|>", NORMAL),
    ("<tool>", USER), ("<tool>>", USER), ("ol><", USER), ("\t\t", USER), ("<unused>", UNUSED),
]
TEXTS = [
    "Hello, world!", " leading", "trailing ", "   ", "\n", "\n\n\n", " \n \n x", "a  b   c", "tab\tand\r\nCRLF\r\r\n\n end",
    "I'm you're he'll WE'VE it'S don't 'tis o'clock' ''s", "'", "x'", "'ll", "1", "12 123 1234 12345 1234567", "a1b22c333d4444",
    "3.14159, 1,000,000; 50% $9.99", "½²Ⅳ٣٤٥٦ 1٣2", "abc.def(ghi)[jkl]{mno}", "if (x <= 10 && y != `z`) { return ~a ^ b | c; }",
    "snake_case camelCase kebab-case", "éèêë ÀÉÎ e\u0301", "привет мир, как дела?", "中文字符和 English 混合", "日本語テキスト、です。",
    "ก็ได้ ไทย", "مرحبا ١٢٣", "😀😀 👩\u200d👧 🇩🇪", "a\u00a0b\u2003c\u3000d\u200be", "\u0378\ue000\ufffd", "tail\u00a0", "!!!\n\n", "...\r\n...",
    "x=1\n\ty=2\n\n\tz", "http://example.org/a?b=c&d=e#f", "the the the the", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "00000000000",
    "\u2581under\u2581", "<|im_start|>user\nhi<|im_end|>\n", "a<tool>b<tool>>c<tool><", "<tool", "\t\t\t x", "<|end|><|endoftext|> <unused>",
    "<s>bos</s> <unk>", "mixed <0x41> bytes",
]


def mix(rng, n):
    return "".join(rng.choice(ATOMS) for _ in range(n))


def train(symbols, n_merges):
    """Byte-pair encoding of one sequence: the merges, each a pair of strings, most frequent first."""
    merges = []
    for _ in range(n_merges):
        pairs = collections.Counter(zip(symbols, symbols[1:]))
        pair, count = min(pairs.items(), key=lambda x: (-x[1], x[0]))
        if count < 2:
            break
        merges.append(pair)
        out, i = [], 0
        while i < len(symbols):
            if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
                out.append(symbols[i] + symbols[i + 1])
                i += 2
            else:
                out.append(symbols[i])
                i += 1
        symbols = out
    return merges


def byte_alphabet():
    """GPT-2's character for each byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(0x100 + i) for i, b in enumerate(other)}}


def byte_level():
    alphabet = byte_alphabet()
    text = mix(random.Random(1), 9000)
    merges = train([alphabet[b] for b in text.encode()], 1100)
    tokens = list(dict.fromkeys([*alphabet.values(), *(a + b for a, b in merges)]))
    # A word that is a token but that no merges lead to: llama-bpe finds it.
    tokens += ["Ġwhole", "Hello"]
    return {
        "tokens": [[t, NORMAL] for t in tokens] + [[t, kind] for t, kind in SPECIAL],
        "merges": ["%s %s" % m for m in merges],
    }


def sentence_piece():
    rng = random.Random(2)
    text = mix(rng, 6000).replace(" ", "\u2581")
    merges = train(list(text), 400)
    tokens = [["<unk>", UNKNOWN, 0.0], ["<s>", CONTROL, 0.0], ["</s>", CONTROL, 0.0]]
    tokens += [["<0x%02X>" % b, BYTE, 0.0] for b in range(256)]
    known = {t[0] for t in tokens}
    pieces = [a + b for a, b in merges] + sorted(set(text) - {"é", "文", "😀", "\t", "\n", "\r"})
    for i, piece in enumerate(pieces):
        if piece not in known:
            known.add(piece)
            # Coarse scores, so that there are ties, for the leftmost to win.
            tokens.append([piece, NORMAL, float(-(i // 8))])
    tokens += [[t, kind, 0.0] for t, kind in SPECIAL if t not in known]
    return {"tokens": tokens}


def metadata(vocab, pre):
    """A GGUF that has a vocabulary and nothing else; the sizes are there because llama.cpp asks."""
    keys = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.context_length": 64, "llama.embedding_length": 64,
        "llama.feed_forward_length": 64, "llama.attention.head_count": 1, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2" if pre else "llama",
        "tokenizer.ggml.tokens": [t[0] for t in vocab["tokens"]],
        "tokenizer.ggml.token_type": [t[1] for t in vocab["tokens"]],
    }
    if pre:
        keys["tokenizer.ggml.pre"] = pre
        keys["tokenizer.ggml.merges"] = vocab["merges"]
        keys["tokenizer.ggml.bos_token_id"] = len(vocab["tokens"]) - len(SPECIAL)
        keys["tokenizer.ggml.eos_token_id"] = keys["tokenizer.ggml.bos_token_id"]
    else:
        keys["tokenizer.ggml.scores"] = [t[2] for t in vocab["tokens"]]
    return keys


def reference(tool, model, text, special):
    with tempfile.NamedTemporaryFile("wb", suffix=".txt") as f:
        f.write(text.encode())
        f.flush()
        command = [tool, "-m", model, "-f", f.name, "--ids", "--no-bos", "--no-escape", "--log-disable"]
        done = subprocess.run(command + ([] if special else ["--no-parse-special"]), check=True, capture_output=True)
    return json.loads(done.stdout)


def write(name, vocab, pres, tool, keep):
    texts = TEXTS + [mix(random.Random(100 + i), 60) for i in range(8)]
    cases = [{"text": t, "special": s, "ids": {}} for t in texts for s in ([False, True] if "<" in t else [False])]
    with tempfile.TemporaryDirectory() as tmp:
        for pre in pres:
            model = os.path.join(keep or tmp, "%s.gguf" % (pre or name))
            gguf.write(model, metadata(vocab, pre), [])
            for case in cases:
                case["ids"][pre] = reference(tool, model, case["text"], case["special"])
    path = os.path.join(TOP, "tests", "unit", "tokenizer_vectors", name + ".json")
    with open(path, "w", encoding="utf-8") as f:
        f.write("{")
        for key in ("tokens", "merges"):
            if key in vocab:
                f.write('"%s": %s,\n' % (key, json.dumps(vocab[key])))
        f.write('"cases": [\n%s\n]}\n' % ",\n".join(json.dumps(c) for c in cases))


def write_seeds():
    """One small vocabulary of each family to open, and a text for each of the fuzzer's own."""
    text = "<s>the 12th a's \u00e9\n\n \u4e2d! </s>".encode()
    special = [["<unk>", UNKNOWN, 0.0], ["<s>", CONTROL, 0.0], ["</s>", CONTROL, 0.0], ["<t>", USER, 0.0]]
    words = ["t", "h", "e", "th", "the", "1", "2", "12", "'", "s"]
    vocabs = {
        "spm": ({"tokens": special + [["<0x%02X>" % b, BYTE, 0.0] for b in b"\n\xc3\xa9"]
                           + [[w, NORMAL, -float(i)] for i, w in enumerate(words + ["\u2581", "\u2581the"])]}, ""),
        "bpe": ({"tokens": special + [[w, NORMAL, 0.0] for w in words + ["\u0120", "\u0120the", "\u010a"]],
                 "merges": ["t h", "th e", "\u0120 the", "1 2"]}, "llama-bpe"),
    }
    where = os.path.join(TOP, "tests", "fuzz", "seeds", "tokenizer")
    os.makedirs(where, exist_ok=True)
    for name, (vocab, pre) in vocabs.items():
        keys = metadata(vocab, pre)
        keys.update({"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2})
        path = os.path.join(where, name)
        gguf.write(path, keys, [])
        with open(path, "rb") as f:
            data = f.read()
        with open(path, "wb") as f:
            f.write(bytes([0, 3]) + len(text).to_bytes(2, "little") + text + data)
    for kind in range(1, 8):
        with open(os.path.join(where, "text-%d" % kind), "wb") as f:
            f.write(bytes([kind, 3]) + text)


def main():
    parser = argparse.ArgumentParser(description="Make the tokenizer test vectors with llama.cpp.")
    parser.add_argument("tool", help="path of llama-tokenize")
    parser.add_argument("--gguf", metavar="DIR", help="keep the GGUF files here")
    args = parser.parse_args()
    write("byte-level", byte_level(), PRES, args.tool, args.gguf)
    write("sentence-piece", sentence_piece(), [""], args.tool, args.gguf)
    write_seeds()


main()
