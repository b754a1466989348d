#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Writes a checkpoint of train.py as GGUF.

  export.py RUN OUT.gguf [--type F16]

Norms stay F32. The rows of the query and key weights are put into the order
in which a llama GGUF expects its rotary pairs: (0, h/2, 1, h/2 + 1, ...).
"""
import argparse
import os
import sys

import numpy as np
import torch

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import gguf  # noqa: E402
from model import Shape  # noqa: E402
from tokenizer import CHAT_TEMPLATE, Tokenizer  # noqa: E402


def interleave(weight, head):
    rows, columns = weight.shape
    pairs = weight.reshape(rows // head, 2, head // 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)


def pairs_apart(weight, head):
    """What interleave() did, undone."""
    rows, columns = weight.shape
    pairs = weight.reshape(rows // head, head // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)


def read_back(path):
    """(weights, Shape) of a model that was written here, as a checkpoint holds them."""
    model = gguf.read(path)
    known = {key[6:]: value.item() for key, value in model.metadata.items()
             if key.startswith("llama.")}
    shape = Shape(vocab=known["vocab_size"], width=known["embedding_length"],
                  layers=known["block_count"], heads=known["attention.head_count"],
                  kv_heads=known["attention.head_count_kv"], ffn=known["feed_forward_length"],
                  context=known["context_length"], rope_base=known["rope.freq_base"],
                  eps=known["attention.layer_norm_rms_epsilon"])
    weights = {}
    for tensor in model.tensors:
        values = tensor.values()
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            values = pairs_apart(values, shape.head)
        weights[tensor.name] = torch.from_numpy(np.array(values))
    return weights, shape


def metadata(shape, tokenizer, name):
    head = shape["width"] // shape["heads"]
    return {
        "general.architecture": "llama",
        "general.name": name,
        "general.license": "mit",
        "llama.vocab_size": shape["vocab"],
        "llama.context_length": shape["context"],
        "llama.embedding_length": shape["width"],
        "llama.block_count": shape["layers"],
        "llama.feed_forward_length": shape["ffn"],
        "llama.attention.head_count": shape["heads"],
        "llama.attention.head_count_kv": shape["kv_heads"],
        "llama.attention.layer_norm_rms_epsilon": float(shape["eps"]),
        "llama.rope.dimension_count": head,
        "llama.rope.freq_base": float(shape["rope_base"]),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokenizer.tokens,
        "tokenizer.ggml.token_type": tokenizer.types(),
        "tokenizer.ggml.merges": tokenizer.merges,
        "tokenizer.ggml.bos_token_id": tokenizer.ids["<|im_start|>"],
        "tokenizer.ggml.eos_token_id": tokenizer.ids["<|im_end|>"],
        "tokenizer.ggml.padding_token_id": tokenizer.ids["<|endoftext|>"],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def tensors(weights, shape, kind):
    head = shape["width"] // shape["heads"]
    for name, weight in weights.items():
        values = weight.numpy()
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            values = interleave(values, head)
        yield gguf.tensor(name, values, kind if values.ndim == 2 else "F32")


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("run", metavar="RUN")
    args.add_argument("out", metavar="OUT.gguf")
    args.add_argument("--type", default="F16", choices=["F32", "F16", "BF16"])
    args.add_argument("--name", default="handbook edge")
    opt = args.parse_args()
    saved = torch.load(os.path.join(opt.run, "last.pt"), map_location="cpu")
    tokenizer = Tokenizer.load(os.path.join(opt.run, "tokenizer.json"))
    shape = saved["shape"]
    gguf.write(opt.out, metadata(shape, tokenizer, opt.name),
               list(tensors(saved["model"], shape, opt.type)))


if __name__ == "__main__":
    main()
