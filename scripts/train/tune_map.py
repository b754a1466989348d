#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Fine-tunes a map on the smaller model's own loss; both models stay as they are.

  tune_map.py CLOUD.gguf EDGE.gguf START.map OUT.map [--own] [--rank 64] [--steps 300]

START comes from `lslm align`. Every layer's W becomes a product of two factors of --rank, by SVD, where
that is smaller; --own starts from the edge's own values instead (gate 1) with a W that adds nothing yet. W, bias and
the gates are trained to make the edge answer questions about handbooks that it has through the map
only. OUT has no evaluation: `lslm align --map OUT.map -o OUT.map` makes one.

Every step has handbooks of its own: from a few dozen a map learns those by heart, and the gradient of
one is mostly noise.
"""
import argparse
import random
import time

import torch
from torch.nn import functional as F

import corpus
import mapfile
import maps
import questions
from eval import open_model

BLOCK = 64
QUESTIONS = 10   # of a handbook
MOST_BYTES = 16 << 20
SEED = corpus.TRAIN_BEGIN * 7    # handbooks that train.py does not get to


class Tuned(torch.nn.Module):
    """The parts of a map with weights that learn."""

    def __init__(self, start, rank, own):
        super().__init__()
        self.start = start
        self.weights = torch.nn.ParameterList()
        self.keep = torch.nn.Parameter(torch.tensor([1.0 if own else p.keep for p in start.parts]))
        for part in start.parts:
            whole = torch.from_numpy(part.a if part.b is None else part.a @ part.b)
            low = min(rank, min(whole.shape))
            a, s, b = torch.linalg.svd(whole, full_matrices=False)
            a, b = a[:, :low] * s[:low].sqrt(), s[:low].sqrt()[:, None] * b[:low]
            self.weights.append(torch.nn.Parameter(a))
            self.weights.append(torch.nn.Parameter(torch.zeros_like(b) if own else b))
            bias = torch.from_numpy(part.bias)
            self.weights.append(torch.nn.Parameter(torch.zeros_like(bias) if own else bias))

    def forward(self, theirs, own):
        """(keys, values) of each layer from the rows of both models."""
        out = []
        half = own.shape[-1] // 2
        for index, part in enumerate(self.start.parts):
            a, b, bias = self.weights[3 * index:3 * index + 3]
            x = torch.cat(list(theirs[part.first:part.first + part.count]), -1)
            mine = own[index // 2][:, index % 2 * half:(index % 2 + 1) * half]
            out.append(self.keep[index].clamp(0, 1) * mine + x @ a @ b + bias)
        return list(zip(out[::2], out[1::2]))

    def result(self):
        out = mapfile.Map(self.start.source, self.start.target, self.start.hashes)
        for index, part in enumerate(self.start.parts):
            a, b, bias = (w.detach().numpy() for w in self.weights[3 * index:3 * index + 3])
            keep = float(self.keep[index].detach().clamp(0, 1))
            out.parts.append(mapfile.Part(part.first, part.count, keep, bias, a, b))
        return out


def prepare(cloud, edge, tokenizer, seed):
    """Rows of a handbook of both models, its questions as one padded batch (ids, goals), their kinds."""
    rng = random.Random(seed)
    book = questions.linked(seed, rng.randint(28, 62), mix=questions.PRACTICE)
    ids = tokenizer.encode(corpus.render_system(book["handbook"]))
    full = len(ids) // BLOCK * BLOCK
    batch = []
    asked = [item["kind"] for item in book["questions"][:QUESTIONS]]
    for item in book["questions"][:QUESTIONS]:
        ask = ids[full:] + tokenizer.encode(corpus.render_question(item["q"]))
        answer = tokenizer.encode(item["a"] + "<|im_end|>")
        batch.append((ask + answer[:-1], [-100] * (len(ask) - 1) + answer))
    longest = max(len(line) for line, _ in batch)
    lines = torch.tensor([line + [0] * (longest - len(line)) for line, _ in batch])
    goals = torch.tensor([goal + [-100] * (longest - len(goal)) for _, goal in batch])
    return maps.rows(cloud, ids[:full]), maps.rows(edge, ids[:full]), lines, goals, asked


def losses_of(edge, halves, lines, goals):
    """The loss of each question's answer."""
    count, past = len(lines), len(halves[0][0])
    caches = []
    for keys, values in halves:
        cache = maps.cache_of(edge, keys, values)
        caches.append({name: part.expand(count, -1, -1, -1) for name, part in cache.items()})
    positions = torch.arange(past, past + lines.shape[1])[None]
    hidden = edge.hidden(lines, positions, exact=True, caches=caches)
    logits = edge.logits(hidden, exact=True)
    each = F.cross_entropy(logits.flatten(0, 1), goals.flatten(), reduction="none")
    return each.view(count, -1).sum(1) / (goals >= 0).sum(1)


def alone(own):
    """The edge's own values, in the form of Tuned.forward()."""
    return [tuple(layer.chunk(2, -1)) for layer in own]


@torch.no_grad()
def held_out(edge, tuned, books):
    """Mean losses alone and through the map, of all questions and of each kind, as text."""
    sums = {}
    for theirs, own, lines, goals, asked in books:
        mine = losses_of(edge, alone(own), lines, goals)
        mapped = losses_of(edge, tuned(theirs, own), lines, goals)
        for kind, a, b in zip(asked, mine.tolist(), mapped.tolist()):
            for name in ("all", kind):
                was = sums.setdefault(name, [0, 0.0, 0.0])
                sums[name] = [was[0] + 1, was[1] + a, was[2] + b]
    return ", ".join(f"{name} {a / n:.4f} to {b / n:.4f}" for name, (n, a, b) in sums.items())


def tune(edge, tuned, draw, test, opt):
    best = torch.optim.AdamW(tuned.parameters(), lr=opt.lr, weight_decay=0.01)
    begin = time.time()
    print(f"held out, alone and mapped: {held_out(edge, tuned, test)}", flush=True)
    for step in range(opt.steps):
        for group in best.param_groups:
            group["lr"] = opt.lr * min(1, (step + 1) / 20) * (1 - step / opt.steps)
        best.zero_grad()
        for index in range(opt.batch):
            theirs, own, lines, goals, _ = draw(step * opt.batch + index)
            (losses_of(edge, tuned(theirs, own), lines, goals).mean() / opt.batch).backward()
        torch.nn.utils.clip_grad_norm_(tuned.parameters(), 1.0)
        best.step()
        if (step + 1) % opt.report == 0:
            print(f"{time.time() - begin:.0f} s, step {step + 1}: {held_out(edge, tuned, test)}",
                  flush=True)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("cloud", metavar="CLOUD.gguf")
    args.add_argument("edge", metavar="EDGE.gguf")
    args.add_argument("start", metavar="START.map")
    args.add_argument("out", metavar="OUT.map")
    args.add_argument("--own", action="store_true", help="start from the edge's own values")
    args.add_argument("--rank", type=int, default=64)
    args.add_argument("--steps", type=int, default=300)
    args.add_argument("--batch", type=int, default=6, help="handbooks of a step")
    args.add_argument("--report", type=int, default=25, help="steps")
    args.add_argument("--test", type=int, default=16, help="handbooks held out")
    args.add_argument("--lr", type=float, default=4e-4)
    opt = args.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cloud, _ = open_model(opt.cloud)
    edge, tokenizer = open_model(opt.edge)
    for weight in edge.parameters():
        weight.requires_grad_(False)

    def draw(number):
        return prepare(cloud, edge, tokenizer, SEED + opt.test + number)

    tuned = Tuned(mapfile.read(opt.start), opt.rank, opt.own)
    tune(edge, tuned, draw, [draw(i - opt.test) for i in range(opt.test)], opt)
    out = tuned.result()
    size = sum(p.a.nbytes + p.b.nbytes + p.bias.nbytes for p in out.parts)
    print("gates " + " ".join("%.3f" % p.keep for p in out.parts) + ", %.1f MB" % (size / 1e6))
    if size > MOST_BYTES:
        raise SystemExit(f"the map would be larger than {MOST_BYTES >> 20} MB, and is not written; lower --rank")
    mapfile.write(opt.out, out)


if __name__ == "__main__":
    main()
