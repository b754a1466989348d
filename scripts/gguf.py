# SPDX-License-Identifier: MIT
"""Read and write GGUF, the file format of models, with numpy and nothing else.

A GGUF file is: the magic "GGUF", a u32 version, a u64 tensor count, a u64 key count; then the
key-value pairs; then one info per tensor (name, dimensions, type, offset); then padding to the
alignment (metadata key general.alignment, 32 where absent) and the tensor data. Versions 2 and 3
are the same for little-endian files. The specification is ggml's docs/gguf.md.

Writing::

    import gguf
    gguf.write("m.gguf", {"general.architecture": "llama",
                          "llama.block_count": 5,
                          "tokenizer.ggml.tokens": ["<unk>", "<s>"],
                          "tokenizer.ggml.scores": np.zeros(2, np.float32)},
               [gguf.tensor("token_embd.weight", weights)])

Metadata keeps the dict's order. A value's type in the file follows its Python type:

    str or bytes        string          bool            bool
    int                 u32 where it fits, otherwise i32, u64, i64, the first that does
    float               f32             numpy scalar    its own type, e.g. np.uint64(7)
    list of str/bytes   string array    list of float   f32 array
    list of int         i32 array       numpy array     array of its own type (one dimension)

Shapes are numpy's: the last dimension is the row, contiguous in memory. The file stores them the
other way round, and so does llama.cpp print them. A weight that computes y = W x is (out, in).

Reading gives back the same types (strings as str, with surrogateescape for what is no UTF-8;
numbers as numpy scalars; arrays as numpy arrays or lists of str), so that write(read()) is
lossless. Tensor data is mapped, not read, so opening a large file costs nothing.

Errors are ValueError with one line. This reader serves our own tools; the one that must stand
hostile files is user/model/gguf.c.
"""
import os
import struct

import numpy as np

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32

# Tensor types: name, (number in the file, elements of a block, bytes of a block).
TYPES = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
    "BF16": (30, 1, 2),
}
_TYPE_NAMES = {number: name for name, (number, _, _) in TYPES.items()}

# Value types by number. A string is 8 and an array 9; bool is a byte that is 0 or 1.
_STRING, _ARRAY, _BOOL = 8, 9, 7
_DTYPES = {
    0: np.dtype("<u1"), 1: np.dtype("<i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"),
    4: np.dtype("<u4"), 5: np.dtype("<i4"), 6: np.dtype("<f4"), _BOOL: np.dtype("?"),
    10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8"),
}
_VALUE_TYPES = {dtype: number for number, dtype in _DTYPES.items()}


class Tensor:
    """One tensor: name, type (a key of TYPES), shape (row last) and its bytes.

    data is an array of any dtype that holds exactly nbytes bytes, or a function without arguments
    that returns such an array; the function form lets write() make large tensors one at a time.
    """

    def __init__(self, name, type_, shape, data):
        if type_ not in TYPES:
            raise ValueError("%s: unknown tensor type %s" % (name, type_))
        self.name, self.type, self._data = name, type_, data
        self.shape = tuple(int(n) for n in shape)
        _, block, size = TYPES[type_]
        if not 1 <= len(self.shape) <= 4 or self.shape[-1] % block:
            raise ValueError("%s: shape %s does not fit blocks of %d" % (name, self.shape, block))
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) // block * size

    @property
    def data(self):
        """The raw bytes as a flat uint8 array."""
        array = self._data() if callable(self._data) else self._data
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if raw.nbytes != self.nbytes:
            raise ValueError("%s: %d bytes of data where %s %s takes %d"
                             % (self.name, raw.nbytes, self.type, self.shape, self.nbytes))
        return raw

    def values(self):
        """The numbers as float32 in the tensor's shape; F32, F16 and BF16 only."""
        if self.type == "F32":
            return self.data.view("<f4").reshape(self.shape)
        if self.type == "F16":
            return self.data.view("<f2").astype(np.float32).reshape(self.shape)
        if self.type == "BF16":
            high = self.data.view("<u2").astype(np.uint32) << np.uint32(16)
            return high.view(np.float32).reshape(self.shape)
        raise ValueError("%s: %s is quantised" % (self.name, self.type))


class Model:
    """What read() returns: version, metadata (an ordered dict) and tensors (a list)."""

    def __init__(self, version, metadata, tensors):
        self.version, self.metadata, self.tensors = version, metadata, tensors

    def find(self, name):
        """The tensor of that name, or None."""
        return next((t for t in self.tensors if t.name == name), None)


def to_bf16(values):
    """float32 to the upper 16 bits, rounded to nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.where((bits & np.uint32(0x7FFFFFFF)) > 0x7F800000, quiet, rounded).astype(np.uint16)


def tensor(name, values, type_=None):
    """A Tensor from an array of floats: stored as F32, F16 or BF16 (default: the array's own)."""
    values = np.asarray(values)
    if type_ is None:
        type_ = "F16" if values.dtype == np.float16 else "F32"
    if type_ == "BF16":
        stored = to_bf16(values)
    elif type_ in ("F32", "F16"):
        stored = values.astype("<f4" if type_ == "F32" else "<f2")
    else:
        raise ValueError("%s: only floats are stored as they are, not %s" % (name, type_))
    return Tensor(name, type_, values.shape, stored)


# --- writing ---


def _string(text):
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _int_type(value):
    for number in (4, 5, 10, 11):
        info = np.iinfo(_DTYPES[number])
        if info.min <= value <= info.max:
            return number
    raise ValueError("integer %d fits no GGUF type" % value)


def _value(key, value):
    """Encode a value with its type tag in front."""
    if isinstance(value, (str, bytes)):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, (bool, int, float)):
        number = (_BOOL if isinstance(value, bool) else
                  6 if isinstance(value, float) else _int_type(value))
        value = np.asarray(value, _DTYPES[number])
    elif isinstance(value, (list, tuple)):
        if all(isinstance(x, (str, bytes)) for x in value):
            return (struct.pack("<IIQ", _ARRAY, _STRING, len(value))
                    + b"".join(_string(x) for x in value))
        kinds = {type(x) for x in value}
        if not kinds <= {int} and not kinds <= {int, float} and not kinds <= {bool}:
            raise ValueError("%s: a list mixes %s" % (key, kinds))
        value = np.asarray(value, "?" if kinds == {bool} else "<i4" if kinds == {int} else "<f4")
    value = np.asarray(value)
    number = _VALUE_TYPES.get(value.dtype.newbyteorder("<"))
    if number is None or value.ndim > 1:
        raise ValueError("%s: no GGUF type for %s" % (key, value.dtype))
    raw = value.astype(_DTYPES[number]).tobytes()
    if value.ndim == 0:
        return struct.pack("<I", number) + raw
    return struct.pack("<IIQ", _ARRAY, number, len(value)) + raw


def write(path, metadata, tensors, version=3):
    """Write a file. It appears under its name only when it is complete.

    The alignment is metadata["general.alignment"] where given. Every tensor starts aligned and the
    last one is padded too, as llama.cpp writes it.
    """
    alignment = int(metadata.get("general.alignment", DEFAULT_ALIGNMENT))
    head = [MAGIC, struct.pack("<IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        head += [_string(key), _value(key, value)]
    offset = 0
    for t in tensors:
        head += [_string(t.name), struct.pack("<I", len(t.shape)),
                 struct.pack("<%dQ" % len(t.shape), *reversed(t.shape)),
                 struct.pack("<IQ", TYPES[t.type][0], offset)]
        offset += t.nbytes + -t.nbytes % alignment
    head = b"".join(head)
    part = "%s.part" % path
    with open(part, "wb") as f:
        f.write(head + bytes(-len(head) % alignment))
        for t in tensors:
            f.write(t.data)
            f.write(bytes(-t.nbytes % alignment))
    os.replace(part, path)


# --- reading ---


class _Cursor:
    """Reads fields one after another and says which file ended too early."""

    def __init__(self, path, data):
        self.path, self.data, self.at = path, data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise ValueError("%s: cut short at byte %d" % (self.path, self.at))
        self.at += n
        return self.data[self.at - n:self.at]

    def unpack(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def string(self):
        return self.take(*self.unpack("<Q")).tobytes().decode("utf-8", "surrogateescape")

    def value(self, number):
        if number == _STRING:
            return self.string()
        if number == _ARRAY:
            number, n = self.unpack("<IQ")
            if number == _STRING:
                return [self.string() for _ in range(n)]
            if number in _DTYPES:
                return np.array(self.take(n * _DTYPES[number].itemsize).view(_DTYPES[number]))
        elif number in _DTYPES:
            return self.take(_DTYPES[number].itemsize).view(_DTYPES[number])[0]
        raise ValueError("%s: value type %d is not supported" % (self.path, number))


def read(path):
    """Map a file and return its Model."""
    c = _Cursor(path, np.asarray(np.memmap(path, np.uint8, "r")))
    if c.take(4).tobytes() != MAGIC:
        raise ValueError("%s: not a GGUF file" % path)
    version, n_tensors, n_keys = c.unpack("<IQQ")
    if version not in (2, 3):
        raise ValueError("%s: GGUF version %d is not supported" % (path, version))
    metadata = {}
    for _ in range(n_keys):
        key = c.string()
        metadata[key] = c.value(*c.unpack("<I"))
    infos = []
    for _ in range(n_tensors):
        name = c.string()
        n_dims, = c.unpack("<I")
        shape = c.unpack("<%dQ" % n_dims)[::-1]
        number, offset = c.unpack("<IQ")
        if number not in _TYPE_NAMES:
            raise ValueError("%s: tensor %s has unsupported type %d" % (path, name, number))
        infos.append((name, _TYPE_NAMES[number], shape, offset))
    start = c.at + -c.at % int(metadata.get("general.alignment", DEFAULT_ALIGNMENT))
    tensors = []
    for name, type_, shape, offset in infos:
        t = Tensor(name, type_, shape, None)
        c.at = start + offset
        tensors.append(Tensor(name, type_, shape, c.take(t.nbytes)))
    return Model(version, metadata, tensors)
