#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Exact match and answer loss on unseen handbooks, with and without them.

  eval.py MODEL QA.jsonl [--against SMALLER] [--tokens 500-1000] [--json]

MODEL is a run of train.py or a GGUF that export.py wrote. With --against both answer the same
questions, and a third table gives what MODEL gains; its interval is a bootstrap over handbooks.

An answer counts where greedy decoding gives it to the last character and then
stops; all tokens being the likeliest under teacher forcing is the same thing.
"other" puts another site's handbook in front: what style alone is worth.
"""
import argparse
import json
import math
import os
import random

import torch

import corpus
import export
import questions
from model import Model, fork, load
from tokenizer import Tokenizer

BUCKETS = [(0, 300), (300, 600), (600, 1000), (1000, 1400), (1400, 2048)]


def open_model(path):
    """(model, tokenizer) of a run or a GGUF."""
    if not path.endswith(".gguf"):
        return (load(os.path.join(path, "last.pt")),
                Tokenizer.load(os.path.join(path, "tokenizer.json")))
    weights, shape = export.read_back(path)
    model = Model(shape)
    model.load_state_dict(weights)
    return model.eval(), Tokenizer.of_gguf(path)


def judge(model, caches, ask, answer):
    """(exact, mean loss per answer token)."""
    logits = model.extend(ask + answer[:-1], fork(caches))[len(ask) - 1:]
    goal = torch.tensor(answer)
    loss = torch.nn.functional.cross_entropy(logits, goal)
    return bool((logits.argmax(-1) == goal).all()), float(loss)


def measure(model, tokenizer, books):
    """One row per question: handbook, its tokens, kind, and (exact, loss) for each setting."""
    rows = []
    prefixes = [tokenizer.encode(corpus.render_system(book["handbook"])) for book in books]
    for index, book in enumerate(books):
        caches = {"with": model.prefix(prefixes[index]),
                  "other": model.prefix(prefixes[index - 1]), "without": model.prefix([])}
        for item in book["questions"]:
            ask = tokenizer.encode(corpus.render_question(item["q"]))
            answer = tokenizer.encode(item["a"] + "<|im_end|>")
            rows.append({"book": index, "tokens": len(prefixes[index]), "kind": item["kind"],
                         **{name: judge(model, cache, ask, answer)
                            for name, cache in caches.items()}})
    return rows


def interval(share, count):
    """Wilson's 95 % interval of a share seen in count trials."""
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(
        share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def summary(rows):
    out = {"questions": len(rows)}
    for name in ("with", "other", "without"):
        exact = sum(row[name][0] for row in rows) / len(rows)
        out[name] = {"exact": exact, "interval": interval(exact, len(rows)),
                     "loss": sum(row[name][1] for row in rows) / len(rows)}
    return out


def table(title, groups):
    print(f"| {title} | questions | exact match % (95 %) | other handbook | no handbook "
          "| loss with | other | no handbook |")
    print("|---|---|---|---|---|---|---|---|")
    for label, rows in groups:
        if not rows:
            continue
        s = summary(rows)
        low, high = (100 * end for end in s["with"]["interval"])
        print(f"| {label} | {len(rows)} | {100 * s['with']['exact']:.1f} ({low:.1f} to {high:.1f}) | "
              f"{100 * s['other']['exact']:.1f} | {100 * s['without']['exact']:.1f} | "
              f"{s['with']['loss']:.3f} | {s['other']['loss']:.3f} | {s['without']['loss']:.3f} |")
    print()


def gain(rows, smaller, draws=2000):
    """Mean difference of exact match and its 95 % interval, handbooks drawn with replacement."""
    books = {}
    for row, other in zip(rows, smaller):
        books.setdefault(row["book"], []).append(row["with"][0] - other["with"][0])
    books = list(books.values())
    rng, means = random.Random(0), []
    for _ in range(draws):
        drawn = [each for book in rng.choices(books, k=len(books)) for each in book]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    every = [each for book in books for each in book]
    return sum(every) / len(every), means[draws // 40], means[-1 - draws // 40]


def compare(groups, smaller):
    """smaller: the other model's row for each of the same questions, by id of the row."""
    print("| questions | count | smaller % | larger % | gain in points (95 %) |")
    print("|---|---|---|---|---|")
    for label, rows in groups:
        if not rows:
            continue
        other = [smaller[id(row)] for row in rows]
        mean, low, high = (100 * each for each in gain(rows, other))
        print(f"| {label} | {len(rows)} | {100 * summary(other)['with']['exact']:.1f} | "
              f"{100 * summary(rows)['with']['exact']:.1f} | {mean:+.1f} ({low:+.1f} to {high:+.1f}) |")
    print()


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("model", metavar="MODEL")
    args.add_argument("qa", metavar="QA.jsonl")
    args.add_argument("--against", metavar="SMALLER")
    args.add_argument("--tokens", type=corpus.span, default=(0, 2048), help="handbooks this long")
    args.add_argument("--json", action="store_true")
    opt = args.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = open_model(opt.model)
    with open(opt.qa, encoding="ascii") as file:
        books = [json.loads(line) for line in file]
    low, high = opt.tokens
    books = [book for book in books
             if low <= len(tokenizer.encode(corpus.render_system(book["handbook"]))) <= high]
    rows = measure(model, tokenizer, books)
    lengths = [(f"{low}-{high} tokens", [r for r in rows if low <= r["tokens"] < high])
               for low, high in BUCKETS]
    kinds = [(kind, [r for r in rows if r["kind"] == kind])
             for kind in [*corpus.KINDS, *questions.FAMILIES]]
    if opt.json:
        print(json.dumps({"all": summary(rows),
                          **{label: summary(part) for label, part in lengths + kinds if part}}))
        return
    table("handbook", [*lengths, ("all", rows)])
    table("kind of question", kinds)
    if opt.against:
        other = measure(*open_model(opt.against), books)
        compare([*lengths, *kinds, ("all", rows)],
                {id(row): its for row, its in zip(rows, other)})


if __name__ == "__main__":
    main()
