# SPDX-License-Identifier: MIT
"""The llama architecture in PyTorch, small enough to train on one core.

Rotary pairs are (i, i + head/2) here; export.py reorders the rows of the query
and key weights into the interleaved pairs that a llama GGUF stores. On a CPU
the matrix products run in bfloat16 while weights, norms, softmax and residual
stream stay in float32; with exact=True everything is float32.
"""
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

QUERY_ROWS = 128    # attention is computed for this many queries at a time


@dataclass
class Shape:
    vocab: int = 1024
    width: int = 192
    layers: int = 3
    heads: int = 6
    kv_heads: int = 6
    ffn: int = 384
    context: int = 2048
    rope_base: float = 1e7
    eps: float = 1e-5

    @property
    def head(self):
        return self.width // self.heads


class HalfLinear(torch.autograd.Function):
    """x @ w.T with bfloat16 products and float32 in and out."""

    @staticmethod
    def forward(ctx, x, weight):
        half = x.reshape(-1, x.shape[-1]).bfloat16()
        whalf = weight.bfloat16()
        ctx.save_for_backward(half, whalf)
        ctx.lead = x.shape[:-1]
        return F.linear(half, whalf).float().view(*ctx.lead, -1)

    @staticmethod
    def backward(ctx, grad):
        half, whalf = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1]).bfloat16()
        dx = torch.mm(grad, whalf).float().view(*ctx.lead, -1)
        return dx, torch.mm(grad.t(), half).float()


class CausalAttention(torch.autograd.Function):
    """softmax(q k^T) v over the past, blocks of queries, scores in `kind`.

    q, k, v: (sequences * heads, tokens, head), q already scaled. The
    probabilities are kept for the backward pass.
    """

    @staticmethod
    def forward(ctx, q, k, v, kind):
        length = q.shape[1]
        q, k, v = q.to(kind), k.to(kind), v.to(kind)
        out, kept = [], []
        for begin in range(0, length, QUERY_ROWS):
            end = min(begin + QUERY_ROWS, length)
            score = torch.bmm(q[:, begin:end], k[:, :end].transpose(1, 2))
            future = torch.full((end - begin, end - begin), -1e30, device=q.device).triu_(1)
            score[:, :, begin:end] += future.to(kind)
            kept.append(score.softmax(-1))
            out.append(torch.bmm(kept[-1], v[:, :end]))
        ctx.save_for_backward(q, k, v, *kept)
        ctx.kind = kind
        return torch.cat(out, 1).float()

    @staticmethod
    def backward(ctx, grad):
        q, k, v, *kept = ctx.saved_tensors
        dq = torch.empty(q.shape, dtype=torch.float32, device=q.device)
        dk, dv = torch.zeros_like(dq), torch.zeros_like(dq)
        grad = grad.to(ctx.kind)
        for index, share in enumerate(kept):
            begin = index * QUERY_ROWS
            end = begin + share.shape[1]
            part = grad[:, begin:end]
            dv[:, :end] += torch.bmm(share.transpose(1, 2), part)
            dshare = torch.bmm(part, v[:, :end].transpose(1, 2))
            dscore = torch._softmax_backward_data(dshare, share, -1, ctx.kind)
            dq[:, begin:end] = torch.bmm(dscore, k[:, :end])
            dk[:, :end] += torch.bmm(dscore.transpose(1, 2), q[:, begin:end])
        return dq, dk, dv, None


class RootMeanSquare(torch.autograd.Function):
    """x / rms(x) * weight with few passes over memory."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        flat = x.reshape(-1, x.shape[-1])
        scale = torch.rsqrt((flat * flat).mean(-1, keepdim=True) + eps)
        unit = flat * scale
        ctx.save_for_backward(unit, scale, weight)
        return (unit * weight).view(x.shape)

    @staticmethod
    def backward(ctx, grad):
        unit, scale, weight = ctx.saved_tensors
        flat = grad.reshape(unit.shape)
        along = flat * unit
        dweight = along.sum(0)
        dot = (along @ weight)[:, None] / unit.shape[1]
        dx = (flat * weight).addcmul_(unit, dot, value=-1).mul_(scale)
        return dx.view(grad.shape), dweight, None


class Gated(torch.autograd.Function):
    """silu(gate) * up over the two halves of the last dimension."""

    @staticmethod
    def forward(ctx, both):
        gate, up = both.chunk(2, -1)
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx, grad):
        gate, up = ctx.saved_tensors
        soft = torch.sigmoid(gate)
        silu = gate * soft
        dgate = (silu - silu * soft).add_(soft).mul_(up).mul_(grad)
        return torch.cat([dgate, silu.mul_(grad)], -1)


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return RootMeanSquare.apply(x, self.weight, self.eps)


def rotate(x, cos, sin):
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        kv = shape.kv_heads * shape.head
        self.shape = shape
        self.attn_norm = Norm(shape.width, shape.eps)
        self.attn_q = nn.Linear(shape.width, shape.width, bias=False)
        self.attn_k = nn.Linear(shape.width, kv, bias=False)
        self.attn_v = nn.Linear(shape.width, kv, bias=False)
        self.attn_output = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = Norm(shape.width, shape.eps)
        self.ffn_gate = nn.Linear(shape.width, shape.ffn, bias=False)
        self.ffn_up = nn.Linear(shape.width, shape.ffn, bias=False)
        self.ffn_down = nn.Linear(shape.ffn, shape.width, bias=False)

    def project(self, x, linear):
        """q, k, v: (sequences, heads, tokens, head)."""
        shape = self.shape
        joined = torch.cat([self.attn_q.weight, self.attn_k.weight, self.attn_v.weight])
        out = linear(x, joined).view(*x.shape[:2], -1, shape.head).transpose(1, 2)
        return out.split([shape.heads, shape.kv_heads, shape.kv_heads], 1)

    def attend(self, x, cos, sin, linear, kind, cache):
        batch, length, _ = x.shape
        q, k, v = self.project(x, linear)
        q, k = rotate(q, cos, sin) / math.sqrt(self.shape.head), rotate(k, cos, sin)
        if cache is not None:
            if "k" in cache:
                k = torch.cat([cache["k"], k], 2)
                v = torch.cat([cache["v"], v], 2)
            cache["k"], cache["v"] = k, v
        group = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        past = k.shape[2] - length
        if past:
            future = torch.full((length, past + length), -1e30, device=q.device).triu_(1 + past)
            out = (q @ k.transpose(2, 3) + future).softmax(-1) @ v
        else:
            flat = [z.reshape(-1, length, self.shape.head) for z in (q, k, v)]
            out = CausalAttention.apply(*flat, kind).view(q.shape)
        out = out.transpose(1, 2).reshape(batch, length, -1)
        return linear(out, self.attn_output.weight)

    def forward(self, x, cos, sin, linear, kind, cache=None):
        x = x + self.attend(self.attn_norm(x), cos, sin, linear, kind, cache)
        both = torch.cat([self.ffn_gate.weight, self.ffn_up.weight])
        wide = Gated.apply(linear(self.ffn_norm(x), both))
        return x + linear(wide, self.ffn_down.weight)


@torch.no_grad()
def start_looking_back(model):
    """Sets the first two layers to what small models take longest to find.

    Copying a value needs two layers that are useless without each other: one whose heads look at
    the tokens before, and one that looks for the place where the same tokens stood. Random
    starts find them late or not at all in the time a CPU has, so training begins from a rough
    version and is free to change it. The residual stream starts as areas of n dimensions: the
    token's code, the codes of the four tokens before it, a constant 1, and the prediction.
    """
    shape, offsets = model.shape, 4
    n = min((shape.width - 1) // 6, shape.head)
    half, one, guess = shape.head // 2, 5 * n, 5 * n + 1
    code = torch.randn(shape.vocab, n) * 0.5
    model.token_embd.weight[:, :n] = code
    model.token_embd.weight[:, one] = 1.0
    model.output.weight[:, guess:guess + n] = code
    rate = shape.rope_base ** (-torch.arange(half) / half)
    first, second = model.blk[0], model.blk[1]
    for matrix in (first.attn_q, first.attn_k, first.attn_v, first.attn_output,
                   second.attn_q, second.attn_k, second.attn_v, second.attn_output):
        matrix.weight.mul_(0.1)
    # After the norm, a code has this size; rotations by rate * offset point at one distance.
    unit = 0.5 / math.sqrt((n * 0.25 + 1) / shape.width)
    for head in range(min(offsets, shape.heads)):
        row = head * shape.head
        turn = rate[:5] * (head + 1)
        first.attn_q.weight[row:row + 5, one] += 0.85
        first.attn_k.weight[row:row + 5, one] += 0.85 * turn.cos()
        first.attn_k.weight[row + half:row + half + 5, one] += 0.85 * turn.sin()
        first.attn_v.weight[row:row + n, :n] += torch.eye(n)
        begin = n * (head + 1)
        first.attn_output.weight[begin:begin + n, row:row + n] += torch.eye(n) * 0.5 / unit
    slow = [i for i in range(half) if rate[i] < 5e-4]
    rows = torch.tensor(slow + [i + half for i in slow])
    for head in range(shape.heads):
        for back in range(3):
            code_to_row = torch.randn(len(rows), n) / math.sqrt(n) * 1.2
            second.attn_q.weight[head * shape.head + rows, back * n:(back + 1) * n] += code_to_row
            second.attn_k.weight[head * shape.head + rows,
                                 (back + 1) * n:(back + 2) * n] += code_to_row
        row = head * shape.head
        second.attn_v.weight[row:row + n, :n] += torch.eye(n)
        second.attn_output.weight[guess:guess + n, row:row + n] += torch.eye(n) * 0.5


def look_at_distance(layer, head, one, rates, distance, strength):
    """Adds to a head's scores a preference for what stands about distance tokens back."""
    row = head * layer.shape.head
    for index, rate in rates:
        layer.attn_q.weight[row + index, one] += strength
        layer.attn_k.weight[row + index, one] += strength * math.cos(rate * distance)
        layer.attn_k.weight[row + layer.shape.head // 2 + index,
                            one] += strength * math.sin(rate * distance)


def empty_head(layer, head):
    """Takes out what a head reads and writes and most of what it looks for."""
    rows = slice(head * layer.shape.head, (head + 1) * layer.shape.head)
    layer.attn_q.weight[rows] *= 0.3
    layer.attn_k.weight[rows] *= 0.3
    layer.attn_v.weight[rows] = 0.0
    layer.attn_output.weight[:, rows] = 0.0


@torch.no_grad()
def start_looking_up(model, known):
    """Sets free parts of a grown model of six layers to what finds a subject by its value.

    The second layer collects at each token three tokens of the sentence so far, the subject,
    in the dimensions that the smaller model, known wide, has not. The third, which finds where
    the same words stood, gets heads that do the same but fetch the subject from there; the
    fifth begins to fetch it into the answer. Returns the readers of both for Guide.
    """
    shape = model.shape
    n = (known - 1) // 6
    half, one, guess = shape.head // 2, 5 * n, 5 * n + 1
    if shape.width < known + 3 * n or shape.heads < known // shape.head + 3:
        raise ValueError("no room for looking up beside the smaller model")
    rates = [(i, shape.rope_base ** (-i / half)) for i in (2, 3)]
    turn = torch.linalg.qr(torch.randn(3 * n, 3 * n))[0]
    collect, find, fetch = model.blk[1], model.blk[2], model.blk[4]
    near, far = torch.zeros(3, n, shape.width), torch.zeros(3, n, shape.width)
    for index in range(3):
        area = slice(known + index * n, known + (index + 1) * n)
        part = turn[:, index * n:(index + 1) * n]
        near[index, :, area] = torch.eye(n)
        far[index, :, known:known + 3 * n] = part.t()
        empty_head(collect, index)
        row = index * shape.head
        look_at_distance(collect, index, one, rates, 7 - index, 0.98)
        collect.attn_v.weight[row:row + n, :n] = 1.1 * torch.eye(n)
        collect.attn_output.weight[area, row:row + n] = torch.eye(n)
        row = (known // shape.head + index) * shape.head
        for matrix in (find.attn_q.weight, find.attn_k.weight):
            matrix[row:row + shape.head] = matrix[index * shape.head:(index + 1) * shape.head]
        find.attn_v.weight[row:row + shape.head] = 0.0
        find.attn_v.weight[row:row + n] = near[index]
        find.attn_output.weight[:, row:row + shape.head] = 0.0
        find.attn_output.weight[known:known + 3 * n, row:row + n] = 2.0 * part
    # From the first token of the answer that is not the same for every subject.
    rates = [(i, shape.rope_base ** (-i / half)) for i in (0, 1, 2, 3)]
    for head, (index, distance) in enumerate([(0, 7), (1, 8), (2, 9), (0, 6), (0, 8), (1, 9)]):
        empty_head(fetch, head)
        row = head * shape.head
        look_at_distance(fetch, head, one, rates, distance, 1.5)
        fetch.attn_v.weight[row:row + n] = 2.0 * far[index]
        fetch.attn_output.weight[guess:guess + n, row:row + n] = 0.5 * torch.eye(n)
    return 2.0 * near, 5.0 * far


def widen(new, old, rows, columns):
    """new with old in its corner; what reads old inputs into new outputs and back starts small."""
    new *= 0.1
    new[:rows, :columns] = old[:rows, :columns]


@torch.no_grad()
def grow(model, old, shape):
    """Sets model to compute what a smaller one does: its weights old, its Shape shape.

    Heads have the same size in both. The old layers are spread over the new ones; layers between
    them start as the identity, and what is added to the others has next to no effect.
    """
    scale = math.sqrt(shape.width / model.shape.width)    # the mean square is over more dimensions
    for part in (model.token_embd.weight, model.output.weight):
        known = old["token_embd.weight" if part is model.token_embd.weight else "output.weight"]
        mean, spread = known.mean(0), known.std(0)
        part[:, :shape.width] = mean + spread * torch.randn(len(part), shape.width)
        part[:len(known), :shape.width] = known
    model.output_norm.weight[:shape.width] = old["output_norm.weight"] * scale
    places = [round(i * (model.shape.layers - 1) / (shape.layers - 1)) for i in range(shape.layers)]
    for index, layer in enumerate(model.blk):
        if index not in places:
            layer.attn_output.weight.zero_()
            layer.ffn_down.weight.zero_()
            continue
        for name, weight in layer.named_parameters():
            was = old[f"blk.{places.index(index)}.{name}"]
            if weight.dim() == 1:
                weight[:len(was)] = was * scale
            else:
                widen(weight, was, *was.shape)


class Model(nn.Module):
    def __init__(self, shape, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.width)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = Norm(shape.width, shape.eps)
        self.output = nn.Linear(shape.width, shape.vocab, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2 and name.startswith("blk."):
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)
        start_looking_back(self)

    def angles(self, positions):
        half = self.shape.head // 2
        rate = self.shape.rope_base ** (-torch.arange(half, device=positions.device) / half)
        angle = positions[:, None, :, None].float() * rate
        return angle.cos(), angle.sin()

    def hidden(self, ids, positions=None, exact=False, caches=None, taps=None,
               only=False):
        """The normed last hidden state. ids, positions: (sequences, tokens).

        taps: a dict whose keys are layers; their outputs become its values. The last result is
        left out, and the layers for it, if only=True.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        cos, sin = self.angles(positions)
        linear = F.linear if exact else HalfLinear.apply
        kind = torch.float32 if exact else torch.bfloat16
        x = self.token_embd(ids)
        for index, layer in enumerate(self.blk):
            x = layer(x, cos, sin, linear, kind, caches[index] if caches else None)
            if taps is not None and index in taps:
                taps[index] = x
                if only and index == max(taps):
                    return None
        return self.output_norm(x)

    def logits(self, hidden, exact=False):
        linear = F.linear if exact else HalfLinear.apply
        return linear(hidden, self.output.weight)

    @torch.no_grad()
    def extend(self, ids, caches):
        """Float32 logits after each of ids, which follow what caches hold; extends them."""
        past = caches[0]["k"].shape[2] if caches[0] else 0
        step = torch.tensor([ids], device=self.output.weight.device)
        positions = torch.arange(past, past + len(ids), device=step.device)[None]
        hidden = self.hidden(step, positions, exact=True, caches=caches)
        return self.logits(hidden[0], exact=True)

    def prefix(self, ids):
        """Caches that hold ids, to be copied by fork() before each use."""
        caches = [{} for _ in self.blk]
        if ids:
            self.extend(ids, caches)
        return caches

    def greedy(self, ids, caches, stop, limit=64):
        """The greedy continuation of ids, without the stop token."""
        out = []
        while len(out) < limit:
            token = int(self.extend(ids, caches)[-1].argmax())
            if token == stop:
                break
            out.append(token)
            ids = [token]
        return out


def fork(caches):
    """extend() replaces the tensors of a cache and never writes into them."""
    return [dict(cache) for cache in caches]


def load(path, device="cpu"):
    saved = torch.load(path, map_location=device)
    model = Model(Shape(**saved["shape"])).to(device)
    model.load_state_dict(saved["model"])
    return model.eval()
