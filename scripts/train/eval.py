#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Exact match and answer loss on unseen handbooks, with and without them.

  eval.py RUN QA.jsonl [--json]

An answer counts where greedy decoding gives it to the last character and then
stops; all tokens being the likeliest under teacher forcing is the same thing.
"other" puts another site's handbook in front: what style alone is worth.
"""
import argparse
import json
import math
import os

import torch

import corpus
from model import fork, load
from tokenizer import Tokenizer

BUCKETS = [(0, 300), (300, 600), (600, 1000), (1000, 1400), (1400, 2048)]


def judge(model, caches, ask, answer):
    """(exact, mean loss per answer token)."""
    logits = model.extend(ask + answer[:-1], fork(caches))[len(ask) - 1:]
    goal = torch.tensor(answer)
    loss = torch.nn.functional.cross_entropy(logits, goal)
    return bool((logits.argmax(-1) == goal).all()), float(loss)


def measure(model, tokenizer, books):
    """One row per question: handbook tokens, kind, and (exact, loss) for each setting."""
    rows = []
    prefixes = [tokenizer.encode(corpus.render_system(book["handbook"])) for book in books]
    for index, book in enumerate(books):
        caches = {"with": model.prefix(prefixes[index]),
                  "other": model.prefix(prefixes[index - 1]), "without": model.prefix([])}
        for item in book["questions"]:
            ask = tokenizer.encode(corpus.render_question(item["q"]))
            answer = tokenizer.encode(item["a"] + "<|im_end|>")
            rows.append({"tokens": len(prefixes[index]), "kind": item["kind"],
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


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("run", metavar="RUN")
    args.add_argument("qa", metavar="QA.jsonl")
    args.add_argument("--json", action="store_true")
    opt = args.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(os.path.join(opt.run, "tokenizer.json"))
    model = load(os.path.join(opt.run, "last.pt"))
    with open(opt.qa, encoding="ascii") as file:
        rows = measure(model, tokenizer, [json.loads(line) for line in file])
    lengths = [(f"{low}-{high} tokens", [r for r in rows if low <= r["tokens"] < high])
               for low, high in BUCKETS]
    kinds = [(kind, [r for r in rows if r["kind"] == kind]) for kind in corpus.KINDS]
    if opt.json:
        print(json.dumps({"all": summary(rows),
                          **{label: summary(part) for label, part in lengths + kinds if part}}))
        return
    table("handbook", [*lengths, ("all", rows)])
    table("kind of question", kinds)


if __name__ == "__main__":
    main()
