#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Holds an exported model against llama.cpp: token ids and greedy answers.

  compare.py RUN MODEL.gguf QA.jsonl LLAMA_BIN [--count 6]

LLAMA_BIN is the folder of llama-tokenize and llama-simple. Prints what differs; 1 if anything does.
"""
import argparse
import ast
import json
import os
import subprocess
import sys

import corpus
from model import load
from tokenizer import Tokenizer


def ids_of(folder, path, text):
    out = subprocess.run([os.path.join(folder, "llama-tokenize"), "-m", path, "--ids", "--no-bos",
                          "--stdin"], input=text, capture_output=True, text=True, check=True)
    return ast.literal_eval(out.stdout.strip().splitlines()[-1])


def answer_of(folder, path, text, limit):
    """llama-simple echoes the prompt with its special tokens spelled out, then what it generates."""
    out = subprocess.run([os.path.join(folder, "llama-simple"), "-m", path, "-n", str(limit),
                          "-ngl", "0", text], capture_output=True, text=True, check=True)
    return out.stdout.rsplit("<|im_start|>assistant\n", 1)[1].split("<|im_end|>")[0].strip("\n")


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("run", metavar="RUN")
    args.add_argument("gguf", metavar="MODEL.gguf")
    args.add_argument("qa", metavar="QA.jsonl")
    args.add_argument("bin", metavar="LLAMA_BIN")
    args.add_argument("--count", type=int, default=6)
    opt = args.parse_args()
    tokenizer = Tokenizer.load(os.path.join(opt.run, "tokenizer.json"))
    model = load(os.path.join(opt.run, "last.pt"))
    stop, checked, wrong = tokenizer.ids["<|im_end|>"], 0, 0
    with open(opt.qa, encoding="ascii") as file:
        books = [json.loads(line) for line in file][:opt.count]
    for book in books:
        for item in book["questions"][:2]:
            text = (corpus.render_system(book["handbook"]) + corpus.render_question(item["q"]))
            ids = tokenizer.encode(text)
            if ids_of(opt.bin, opt.gguf, text) != ids:
                print(f"token ids differ: {item['q']}")
                wrong += 1
            ours = tokenizer.decode(model.greedy(ids, model.prefix([]), stop))
            theirs = answer_of(opt.bin, opt.gguf, text, 64)
            if ours != theirs:
                print(f"{item['q']}\n  here      {ours}\n  llama.cpp {theirs}")
                wrong += 1
            checked += 1
    print(f"{checked} answers and their prompts compared, {wrong} differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
