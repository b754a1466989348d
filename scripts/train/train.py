#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Trains the handbook model; resumable, seeded.

Two kinds of sequences. Handbooks with questions teach the task; only the
answers count in full. Random tokens written twice teach looking back: without
them the model stays at guessing among the values that it has seen. Stages go
from a few facts to a full handbook, and the next begins once answers come out
exactly right often enough. A share of the batches is drawn from later stages,
so that no distance is new when its stage begins.

  train.py --dir RUN [--steps 482] [--device cpu]

RUN holds tokenizer.json (tokenizer.py) and the checkpoint last.pt, which is
replaced by rename. Started again, it goes on from there; SIGTERM ends it with a checkpoint.
"""
import argparse
import bisect
import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn
from torch.nn import functional as F

import corpus
import export
import questions
from model import HalfLinear, Model, Shape, grow, start_looking_up
from tokenizer import LETTERS, Tokenizer

# tokens, sequences, facts, share of alike device names, exact answers to pass
STAGES = [
    (288, 24, (3, 6), 0.1, 0.55),
    (448, 20, (6, 14), 0.2, 0.60),
    (704, 12, (12, 26), 0.3, 0.65),
    (1088, 8, (20, 48), 0.4, 0.75),
    (1536, 6, (30, 70), 0.5, 2.0),
]
SPACE = LETTERS[ord(" ")]
TAPS = (1, 2)           # the layers whose outputs are guided
FAMILIES = list(questions.FAMILIES)
PLAIN_STEPS = 50        # whole repeats and no jumps until here
REPEATS_STEPS = 200     # half of the sequences are repeats until here, one in eight after


def answer_weight(kind, length):
    """The words that decide an answer, the number of a count or a subject, weigh as several."""
    weight = [1.0] * length
    if kind == "count":
        weight[-3] = 4.0
    if kind == "reverse":
        weight[:5] = [4.0] * min(5, length)
    return weight


class Source:
    """Sequences by number: the same seed and count give the same batch."""

    def __init__(self, tokenizer, opt):
        self.tokenizer = tokenizer
        self.linked = opt.linked
        self.size = opt.size
        self.mix = questions.PRACTICE if opt.hard else questions.MIX
        self.mix = json.loads(opt.mix) if opt.mix else self.mix
        self.alike = opt.alike
        self.rng = random.Random(opt.seed)

    def repeat(self, length, plain):
        """Random tokens again and again, or twice with the second as pieces in another order."""
        rng = self.rng
        alphabet = rng.sample(range(3, len(self.tokenizer.tokens)), rng.choice([256, 1000]))
        if plain or rng.random() < 0.5:
            # A period of any length, so that only the tokens tell where to look, not the distance.
            period = rng.randint(12, length // 2)
            first = rng.choices(alphabet, k=period)
            ids = (first * (length // period + 1))[:length]
            return ids, [0.0] * (period + 3) + [1.0] * (length - period - 3)
        first = rng.choices(alphabet, k=length // 2)
        parts, at = [], 0
        while at < len(first):
            step = rng.randint(5, 14)
            parts.append(first[at:at + step])
            at += step
        rng.shuffle(parts)
        second, weight = [], []
        for part in parts:
            second += part
            weight += [0.0] * min(3, len(part)) + [1.0] * max(0, len(part) - 3)
        return first + second, [0.0] * len(first) + weight

    def write(self, seed, count, likeness):
        """(a handbook with questions, its facts where they are known)"""
        pick = self.rng.random()
        if pick < self.alike:
            return questions.write(seed, count, likeness, self.mix, questions.draw_alike)
        if pick < self.alike + (1 - self.alike) * self.linked:
            return questions.write(seed, count, likeness, self.mix)
        return corpus.handbook(seed, count, likeness), []

    def about(self, subject):
        """Three tokens that tell a subject from others, -1 where it has fewer."""
        ids = self.tokenizer.encode(" " + subject.removeprefix("the "))
        if self.tokenizer.tokens[ids[0]] == SPACE:
            ids = ids[1:]
        return (ids + [-1, -1])[:3]

    def places_of(self, text, ids, spans):
        """[(token, value)]: the tokens that end within the spans [(begin, end, value)] of text."""
        ends, at = [], 0
        for each in ids:
            at += len(self.tokenizer.tokens[each])
            ends.append(at)
        assert at == len(text)
        for begin, end, value in spans:
            for index in range(bisect.bisect_right(ends, begin), bisect.bisect_left(ends, end) + 1):
                yield index, value

    def book(self, length, facts, likeness):
        """A handbook and as many questions as fit: (ids, weight, family, marks).

        weight is positive for answer tokens and family tells their kind; marks are
        (token, 0 in the handbook or 1 in a question, the subject that it is about).
        """
        rng, encode = self.rng, self.tokenizer.encode
        count = rng.randint(*facts)
        while True:
            book, known = self.write(rng.randrange(corpus.TRAIN_BEGIN, 1 << 48), count,
                                     rng.random() * 2 * likeness)
            text = corpus.render_system(book["handbook"])
            ids = encode(text)
            if len(ids) + 100 <= length:
                break
            count = max(1, count - 2)
        weight, family = [0.0] * len(ids), [-1] * len(ids)
        spans = []
        for _, subject, value, sentence in known:
            end = text.index(sentence) + len(sentence)
            begin = end - len(sentence) + sentence.rindex(value)
            spans.append((begin, end, self.about(subject)))
        marks = [(at, 0, subject) for at, subject in self.places_of(text, ids, spans)]
        for item in book["questions"]:
            text = corpus.render_question(item["q"])
            ask = encode(text)
            answer = encode(item["a"] + "<|im_end|>")
            line = encode("\n")
            if len(ids) + len(ask) + len(answer) + 1 > length:
                break
            for _, subject, value, sentence in known:
                if item["kind"] == "reverse" and item["a"] == sentence:
                    end = text.index(value) + len(value)
                    marks += [(len(ids) + at, 1, each) for at, each in
                              self.places_of(text, ask, [(end - 1, end, self.about(subject))])]
            ids += ask + answer + line
            weight += [0.0] * len(ask) + answer_weight(item["kind"], len(answer)) + [0.0]
            # The kinds of corpus.py are all plain questions.
            name = item["kind"] if item["kind"] in FAMILIES else "plain"
            family += [-1] * len(ask) + [FAMILIES.index(name)] * len(answer) + [-1]
        return ids, weight, family, marks

    def positions(self, length, reach):
        """Half of the time a jump or two, so that far distances occur in short texts."""
        steps = [1] * length
        for _ in range(self.rng.choice([0, 0, 1, 2])):
            steps[self.rng.randrange(length)] += self.rng.randint(0, max(0, reach - length) // 2)
        at, out = -1, []
        for step in steps:
            at += step
            out.append(at)
        return out

    def batch(self, stage, repeats, plain):
        length, count, facts, likeness, _ = STAGES[stage]
        count = max(2, round(count * self.size))
        rows, weights, kinds, families = [], [], [], []
        marked = torch.full((count, length + 1, 4), -1)
        for index in range(count):
            if index < repeats * count:
                ids, weight = self.repeat(length + 1, plain)
                family, marks = [-1] * len(ids), []
            else:
                ids, weight, family, marks = self.book(length + 1, facts, likeness)
            for at, where, subject in marks:
                marked[index, at] = torch.tensor([where, *subject])
            pad = length + 1 - len(ids)
            rows.append(ids + [0] * pad)
            weights.append(weight + [-1.0] * pad)
            families.append(family + [-1] * pad)
            kinds.append(index < repeats * count)
        places = [self.positions(length, length if plain else STAGES[-1][0]) for _ in rows]
        return (*map(torch.tensor, (rows, weights, places, kinds, families)), marked)


class Guide(nn.Module):
    """Reads the subject of a fact from the residual stream at its value: a target in between.

    part 0 is about the values in the handbook, part 1 about those in questions. The model does
    not keep it.
    """

    def __init__(self, width, part):
        super().__init__()
        self.part = part
        self.read = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(3))

    @torch.no_grad()
    def begin(self, read):
        """Starts from readers (3, part of the width, width) of tokens' codes."""
        for each, start in zip(self.read, read):
            each.weight.zero_()
            each.weight[:start.shape[0]] = start

    def forward(self, x, marked, codes, exact):
        loss, codes = 0.0 * x.sum(), codes.detach()     # there may be nothing to read
        for index, read in enumerate(self.read):
            pick = (marked[..., 1 + index] >= 0) & ((marked[..., 0] > 0) == (self.part > 0))
            goal = marked[..., 1 + index][pick]
            if not len(goal):
                continue
            unit = F.layer_norm(x[pick], x.shape[-1:])
            logits = HalfLinear.apply(HalfLinear.apply(unit, read.weight), codes)
            loss = loss + F.cross_entropy(logits, goal)
            if index < 2:
                right = logits.argmax(-1) == goal
                exact[f"guide{self.part}.{index}"] = (len(goal), int(right.sum()))
        return loss


class Trainer:
    def __init__(self, opt):
        self.opt = opt
        self.tokenizer = Tokenizer.load(os.path.join(opt.dir, "tokenizer.json"))
        self.path = os.path.join(opt.dir, "last.pt")
        shape = Shape(vocab=len(self.tokenizer.tokens), **json.loads(opt.shape))
        self.source = Source(self.tokenizer, opt)
        self.model = Model(shape, opt.seed)
        self.guides = nn.ModuleList(Guide(shape.width, part) for part in (0, 1) if opt.guide)
        if opt.start and not os.path.exists(self.path):
            grow(self.model, *export.read_back(opt.start))
            if opt.look_up:
                for guide, read in zip(self.guides, start_looking_up(self.model, opt.look_up)):
                    guide.begin(read)
        self.model.to(opt.device)
        self.pool = ThreadPoolExecutor(opt.threads)
        self.params = [*self.model.parameters(), *self.guides.parameters()]
        self.optims = [torch.optim.Adam(self.params, lr=opt.lr, betas=(0.9, 0.95))]
        self.stopped = False
        signal.signal(signal.SIGTERM, self.stop)
        self.state = {"step": 0, "stage": opt.first_stage, "tokens": 0, "seconds": 0.0,
                      "exact": 0.0}
        if os.path.exists(self.path):
            self.load()

    def stop(self, *_):
        """Ends the run after this step, with a checkpoint."""
        self.stopped = True

    def load(self):
        saved = torch.load(self.path, map_location=self.opt.device)
        self.model.load_state_dict(saved["model"])
        self.guides.load_state_dict(saved["guides"])
        for optim, state in zip(self.optims, saved["optims"]):
            optim.load_state_dict(state)
        self.state = saved["state"]
        self.source.rng.setstate(saved["rng"])
        torch.set_rng_state(saved["torch_rng"].cpu())

    def save(self):
        torch.save({"model": self.model.state_dict(), "shape": vars(self.model.shape),
                    "guides": self.guides.state_dict(),
                    "optims": [optim.state_dict() for optim in self.optims],
                    "state": self.state, "rng": self.source.rng.getstate(),
                    "torch_rng": torch.get_rng_state()}, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def rate(self):
        """Warm-up, in each phase; then level; falls towards zero over the last --decay steps."""
        step = self.state["step"]
        for length in (self.opt.collect, self.opt.fetch):
            if step < length:
                break
            step -= length
        left = self.opt.steps - self.state["step"]
        return min(1.0, (step + 1) / self.opt.warmup, max(0.01, left / self.opt.decay))

    def losses(self, batch):
        """(loss, its parts, exact_answers()): answers, repeats and a sample of other text."""
        ids, weight, places, kinds, families, marked, sample = (part.to(self.opt.device)
                                                                for part in batch)
        if self.state["step"] < self.opt.collect:
            return self.collect(ids, places, marked)
        taps = {TAPS[0]: None, TAPS[1]: None} if self.guides else None
        hidden = self.model.hidden(ids[:, :-1], places, taps=taps)
        target, weight = ids[:, 1:], weight[:, 1:]
        pick = (weight > 0) | (sample[:, 1:] & ~kinds[:, None] & (weight == 0))
        rows, columns = pick.nonzero(as_tuple=True)
        logits = self.model.logits(hidden[rows, columns])
        goal = target[rows, columns]
        each = F.cross_entropy(logits, goal, reduction="none")
        share = weight[rows, columns]
        parts = {}
        for name, mask in (("answer", share * ~kinds[rows]), ("repeat", share * kinds[rows]),
                           ("text", (share == 0).float())):
            parts[name] = (each * mask).sum() / mask.sum().clamp(min=1.0)
        right = torch.ones_like(target, dtype=torch.bool)
        right[rows, columns] = logits.argmax(-1) == goal
        exact = exact_answers(right, families[:, 1:])
        guided = 0.0
        for guide, tap in zip(self.guides, TAPS):
            if guide.read[0].weight.requires_grad:
                guided += guide(taps[tap], marked[:, :-1], self.model.token_embd.weight, exact)
        loss = parts["answer"] + 0.5 * parts["repeat"] + self.opt.text * parts["text"]
        loss = loss + self.opt.guide * guided
        return loss, {name: float(part) for name, part in parts.items()}, exact

    def collect(self, ids, places, marked):
        """As losses(), of nothing but what the lower layers have to collect."""
        taps, exact = {TAPS[0]: None}, {}
        self.model.hidden(ids[:, :-1], places, taps=taps, only=True)
        loss = self.guides[0](taps[TAPS[0]], marked[:, :-1], self.model.token_embd.weight, exact)
        return loss, {"collect": float(loss)}, exact

    def learning(self):
        return [weight for weight in self.params if weight.requires_grad]

    def share(self, batch):
        """One thread's part of a batch: (gradients, parts of the loss, exact)."""
        loss, parts, exact = self.losses(batch)
        # A batch without a subject of three tokens leaves a reader unused.
        return torch.autograd.grad(loss, self.learning(), allow_unused=True), parts, exact

    def gradients(self, batch):
        """Splits the batch between the threads; leaves the mean in .grad, returns mean parts."""
        count = self.opt.threads
        work = self.pool.map(self.share, [[part[i::count] for part in batch] for i in range(count)])
        grads, parts, exact = zip(*work)
        for weight, *each in zip(self.learning(), *grads):
            each = [grad for grad in each if grad is not None]
            weight.grad = sum(each) / count if each else None
        return ({name: sum(part[name] for part in parts) / count for name in parts[0]},
                add_up(exact))

    def choose(self):
        """Sets which weights learn at this step.

        What start_looking_up() began is first taught where to look, all else as it was.
        """
        step, blk = self.state["step"], self.model.blk
        chosen = self.params
        if step < self.opt.collect:
            chosen = [blk[TAPS[0]].attn_q.weight, blk[TAPS[0]].attn_k.weight,
                      *self.guides[0].parameters()]
        elif step < self.opt.collect + self.opt.fetch:
            chosen = [blk[2].attn_q.weight, blk[2].attn_k.weight, *self.guides[1].parameters(),
                      *blk[4].parameters(), *blk[5].parameters()]
        chosen = set(map(id, chosen))
        for weight in self.params:
            weight.requires_grad_(id(weight) in chosen)
            weight.grad = None

    def step(self):
        state = self.state
        stage = state["stage"]
        if self.source.rng.random() < self.opt.ahead and stage + 1 < len(STAGES):
            stage = self.source.rng.randrange(stage + 1, len(STAGES))
        known = self.opt.start is not None
        repeats = 0.5 if state["step"] < REPEATS_STEPS and not known else self.opt.repeats
        batch = self.source.batch(stage, repeats, state["step"] < PLAIN_STEPS and not known)
        self.choose()
        parts, exact = self.gradients([*batch, torch.rand(batch[1].shape) < 0.1])
        most = self.opt.lr * (3.0 if state["step"] < self.opt.collect else 1.0)
        for optim in self.optims:
            for group in optim.param_groups:
                group["lr"] = most * self.rate()
        torch.nn.utils.clip_grad_norm_([w for w in self.learning() if w.grad is not None], 1.0)
        for optim in self.optims:
            optim.step()
        state["step"] += 1
        state["tokens"] += batch[0].numel()
        if stage == state["stage"]:
            asked, right = map(sum, zip(*(exact.get(name, (0, 0)) for name in FAMILIES)))
            state["exact"] += 0.05 * (right / max(1, asked) - state["exact"])
        if state["exact"] > STAGES[state["stage"]][4] and state["stage"] < self.opt.last_stage:
            state["stage"], state["exact"] = state["stage"] + 1, 0.0
        return stage, parts, exact

    def run(self):
        sums, last = {}, time.time()
        saved = last
        while self.state["step"] < self.opt.steps and not self.stopped:
            stage, parts, exact = self.step()
            now = time.time()
            self.state["seconds"] += now - last
            last = now
            row = sums.setdefault(stage, [0, {}, {}])
            row[0] += 1
            row[2] = add_up([row[2], exact])
            for name, part in parts.items():
                row[1][name] = row[1].get(name, 0.0) + part
            if self.state["step"] % self.opt.report == 0:
                self.report(sums)
                sums = {}
            if now - saved > 60:
                self.save()
                saved = now
        self.save()

    def report(self, sums):
        state = self.state
        print(f"{state['seconds']:.0f}s step {state['step']} {state['tokens'] / 1e6:.2f}M tokens "
              f"stage {state['stage']} exact {state['exact']:.3f}", flush=True)
        for stage, (count, parts, exact) in sorted(sums.items()):
            text = " ".join(f"{name} {part / count:.3f}" for name, part in parts.items())
            share = " ".join(f"{name} {100 * right / asked:.0f}%"
                             for name, (asked, right) in exact.items() if asked)
            print(f"    stage {stage}: {text} ({count}) exact {share}", flush=True)


def exact_answers(right, family):
    """{family: (its answers, those in which every token is the most likely one)}"""
    answer = family >= 0
    edge = F.pad(answer.int(), (1, 0)).diff(dim=1) > 0
    number = (edge.flatten().cumsum(0) - 1)[answer.flatten()]
    wrong = torch.zeros(int(edge.sum()), device=right.device)
    wrong.index_add_(0, number, (~right.flatten()[answer.flatten()]).float())
    kind = family.flatten()[edge.flatten()]
    return {name: (int((kind == index).sum()), int((wrong[kind == index] == 0).sum()))
            for index, name in enumerate(FAMILIES)}


def add_up(counts):
    names = dict.fromkeys(name for each in counts for name in each)
    return {name: tuple(sum(each.get(name, (0, 0))[i] for each in counts) for i in (0, 1))
            for name in names}


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--dir", required=True)
    args.add_argument("--device", default="cpu")
    args.add_argument("--steps", type=int, default=482)
    args.add_argument("--decay", type=int, default=41, help="steps of falling rate at the end")
    args.add_argument("--shape", default="{}", help="JSON over model.Shape")
    args.add_argument("--lr", type=float, default=2e-3)
    args.add_argument("--text", type=float, default=0.1, help="weight of text that is no answer")
    args.add_argument("--ahead", type=float, default=0.15, help="share of batches of later stages")
    args.add_argument("--repeats", type=float, default=0.06, help="later share of repeats")
    args.add_argument("--linked", type=float, default=0.8, help="share of linked handbooks")
    args.add_argument("--size", type=float, default=1.0, help="factor on the sequences of a batch")
    args.add_argument("--hard", action="store_true", help="more questions of the hard families")
    args.add_argument("--alike", type=float, default=0.0, help="share of books of one kind of fact")
    args.add_argument("--guide", type=float, default=0.0, help="weight of the subjects in between")
    args.add_argument("--look-up", type=int, default=0, metavar="WIDTH",
                      help="start_looking_up() beside what a model of this width had")
    args.add_argument("--collect", type=int, default=0, help="steps of its first part alone")
    args.add_argument("--fetch", type=int, default=0, help="steps of the others, then of all")
    args.add_argument("--warmup", type=int, default=100)
    args.add_argument("--mix", help="JSON, the shares of the families")
    args.add_argument("--first-stage", type=int, default=0)
    args.add_argument("--last-stage", type=int, default=len(STAGES) - 1)
    args.add_argument("--start", metavar="MODEL.gguf", help="grow this model instead of a new one")
    args.add_argument("--threads", type=int, default=1, help="parts of a batch at once")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--report", type=int, default=10)
    opt = args.parse_args()
    if opt.device == "cpu":
        torch.set_num_threads(1)
    Trainer(opt).run()


if __name__ == "__main__":
    main()
