"""What a scan is compared with: read the file, take singular values through float64 Gram matrices, one thread.

    python benchmarks/floor.py adapter_model.safetensors [blocks]

Plain, it is what anyone would write first. With `blocks` it maps the file and converts 1,024 rows at a time, which is
the fastest form found; the table gives both.
"""

import os
import sys

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import json
import mmap

import ml_dtypes
import numpy as np

TYPES = {"BF16": ml_dtypes.bfloat16, "F32": np.float32}
BLOCKS = "blocks" in sys.argv[2:]

file = open(sys.argv[1], "rb")  # noqa: SIM115 (the map below needs it until the end)
length = int.from_bytes(file.read(8), "little")
header = json.loads(file.read(length))
header.pop("__metadata__", None)


def tensor(name):
    entry = header[name]
    start, end = entry["data_offsets"]
    kind = np.dtype(TYPES[entry["dtype"]])
    if BLOCKS:
        return np.frombuffer(data, kind, (end - start) // kind.itemsize, 8 + length + start).reshape(entry["shape"])
    return np.frombuffer(data[start:end], kind).reshape(entry["shape"])


def gram(tall):
    if not BLOCKS:
        wide = tall.astype(np.float64)
        return wide.T @ wide
    total = np.zeros((tall.shape[1],) * 2)
    for start in range(0, len(tall), 1024):
        block = tall[start : start + 1024].astype(np.float64)
        total += block.T @ block
    return total


def root(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0))


data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if BLOCKS else file.read()
total = 0.0
for name in header:
    if name.endswith("lora_A.weight"):
        a, b = tensor(name), tensor(name.replace("lora_A", "lora_B"))
        total += np.linalg.svd(root(gram(b)).T @ root(gram(a.T)), compute_uv=False)[0]
print(total)
