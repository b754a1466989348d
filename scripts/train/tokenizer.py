#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Byte-level BPE in the form GGUF calls model "gpt2", pre-tokenizer "smollm".

The pre-tokenizer sets every digit apart, then splits what lies between by
GPT-2's expression. Numbers are therefore copied digit by digit, and a word of
the corpus with its leading space is one token once the merges have seen it.

  tokenizer.py OUT.json [--vocab 1280] [--base MODEL.gguf]     train on the generated corpus
"""
import argparse
import collections
import json
import os
import re
import sys

import corpus
import questions

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import gguf  # noqa: E402

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
# \p{L} and \p{N} of the original, spelled for Python's re.
LETTER = r"[^\W\d_]"
WORDS = re.compile(rf"'s|'t|'re|'ve|'m|'ll|'d| ?{LETTER}+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
DIGIT = re.compile(r"\d|[^\d]+")
CONTROL = re.compile("(" + "|".join(re.escape(token) for token in SPECIAL) + ")")


def byte_letters():
    """GPT-2's printable stand-in for each byte value."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {value: chr(value) for value in keep}
    extra = (value for value in range(256) if value not in table)
    table.update({value: chr(256 + index) for index, value in enumerate(extra)})
    return [table[value] for value in range(256)]


LETTERS = byte_letters()


def pieces(text):
    """The pre-tokenizer: strings that no merge crosses."""
    for part in DIGIT.findall(text):
        yield from WORDS.findall(part)


def spell(piece):
    return [LETTERS[value] for value in piece.encode("utf-8")]


class Tokenizer:
    def __init__(self, tokens, merges):
        self.tokens = tokens
        self.merges = merges
        self.ids = {token: index for index, token in enumerate(tokens)}
        self.rank = {tuple(merge.split(" ")): index for index, merge in enumerate(merges)}
        self.cache = {}

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        return cls(data["tokens"], data["merges"])

    @classmethod
    def of_gguf(cls, path):
        known = gguf.read(path).metadata
        return cls(known["tokenizer.ggml.tokens"], known["tokenizer.ggml.merges"])

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"tokens": self.tokens, "merges": self.merges}, file, indent=0)

    def types(self):
        """GGUF token types: 3 is control, 1 is normal."""
        return [3 if token in SPECIAL else 1 for token in self.tokens]

    def encode_piece(self, piece):
        word = spell(piece)
        while len(word) > 1:
            ranked = [(self.rank.get(pair, len(self.rank)), at)
                      for at, pair in enumerate(zip(word, word[1:]))]
            best, at = min(ranked)
            if best == len(self.rank):
                break
            word[at:at + 2] = [word[at] + word[at + 1]]
        return [self.ids[part] for part in word]

    def encode(self, text):
        out = []
        for part in CONTROL.split(text):
            if part in SPECIAL:
                out.append(self.ids[part])
                continue
            for piece in pieces(part):
                if piece not in self.cache:
                    self.cache[piece] = self.encode_piece(piece)
                out += self.cache[piece]
        return out

    def decode(self, ids):
        value = {letter: byte for byte, letter in enumerate(LETTERS)}
        out = bytearray()
        for index in ids:
            if self.tokens[index] in SPECIAL:
                out += self.tokens[index].encode()
            else:
                out += bytes(value[letter] for letter in self.tokens[index])
        return out.decode("utf-8", "replace")


def corpus_words(books):
    counts = collections.Counter()
    for seed in range(corpus.TRAIN_BEGIN, corpus.TRAIN_BEGIN + books):
        for book in (corpus.handbook(seed, 30), questions.linked(seed, 30)):
            counts.update(pieces("system\n" + book["handbook"]))
            for item in book["questions"][:10]:
                counts.update(pieces("user\n" + item["q"]))
                counts.update(pieces("assistant\n" + item["a"]))
    return counts


def train(base, vocab, books):
    """Further merges for base by falling pair count; ties go to the pair that sorts first."""
    words = [([base.tokens[part] for part in base.encode_piece(word)], count)
             for word, count in sorted(corpus_words(books).items())]
    tokens, merges = list(base.tokens), list(base.merges)
    while len(tokens) < vocab:
        pairs = collections.Counter()
        for word, count in words:
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        tokens.append(left + right)
        merges.append(f"{left} {right}")
        for word, _ in words:
            at = 0
            while at < len(word) - 1:
                if word[at] == left and word[at + 1] == right:
                    word[at:at + 2] = [left + right]
                at += 1
    return Tokenizer(tokens, merges)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("out", metavar="OUT.json")
    args.add_argument("--vocab", type=int, default=1280)
    args.add_argument("--base", metavar="MODEL.gguf", help="keep its tokens and add to them")
    args.add_argument("--books", type=int, default=3000)
    opt = args.parse_args()
    base = Tokenizer(SPECIAL + LETTERS, [])
    if opt.base:
        base = Tokenizer.of_gguf(opt.base)
    train(base, opt.vocab, opt.books).save(opt.out)


if __name__ == "__main__":
    main()
