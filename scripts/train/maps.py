# SPDX-License-Identifier: MIT
"""The rows that a map maps (user/codec/rows.h), from the models of model.py and back.

A row of a token is its key before RoPE, then its value, both [head][dimension] in the order of the
GGUF, whose rotary pairs lie side by side; the models of model.py have them half a head apart.
"""
import torch

from model import rotate


def gguf_order(head):
    """Where in a head of model.py each dimension of the GGUF's is."""
    return torch.tensor([side * (head // 2) + i for i in range(head // 2) for side in (0, 1)])


def rows(model, ids):
    """(layers, tokens, row) of a model after these ids."""
    caches = model.prefix(ids)
    cos, sin = model.angles(torch.arange(len(ids))[None])
    out = []
    for cache in caches:
        keys = rotate(cache["k"], cos, -sin)[0][..., gguf_order(model.shape.head)]
        out.append(torch.cat([part.transpose(0, 1).reshape(len(ids), -1)
                              for part in (keys, cache["v"][0])], -1))
    return torch.stack(out)


def cache_of(model, keys, values):
    """What model.extend() takes, of one layer: keys and values as in rows, (tokens, heads * head)."""
    shape = model.shape
    back = gguf_order(shape.head).argsort()
    keys, values = (part.view(len(part), shape.kv_heads, shape.head).transpose(0, 1)[None]
                    for part in (keys, values))
    cos, sin = model.angles(torch.arange(keys.shape[2])[None])
    return {"k": rotate(keys[..., back], cos, sin), "v": values}
