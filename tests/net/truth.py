# SPDX-License-Identifier: MIT
"""What is in a published file, for servers that are to send it, or something else."""
import importlib.util
import os

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
spec = importlib.util.spec_from_file_location("lskv", os.path.join(TOP, "scripts", "lskv.py"))
lskv = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lskv)


class Truth:
    """What an honest cloud would send for a file."""

    def __init__(self, path):
        with open(path, "rb") as f:
            data = f.read()
        size = int.from_bytes(data[16:24], "little")
        self.manifest = data[64:64 + size]
        m = lskv.Context(data).manifest
        self.layers, self.stripes = m.n_layer, len(m.tokens) // 64
        self.block = 2 * m.n_head_kv * 64 * m.head_dim * 2
        area = data[-self.block * self.layers * self.stripes:]
        self.tail = [area[(s * self.layers + l) * self.block:][:self.block]
                     for s in reversed(range(self.stripes)) for l in range(self.layers)]
        self.blocks = [area[(s * self.layers + l) * self.block:][:self.block]
                       for l in range(self.layers) for s in range(self.stripes)]

    def stream(self, path="from=0"):
        return b"".join(self.blocks[int(path.split("from=")[1]):])
