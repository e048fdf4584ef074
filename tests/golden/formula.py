"""The shared formula for inputs, parameters and gradients, and the writing of the JSON files.

`value` is the same, bit for bit in f32, as `value` of tests/support/mod.rs, so that no large file need be stored.
Imported by the make_*.py scripts. Written with Python 3.11, numpy 2.4 and torch 2.15 (any torch 2 will do).
"""

import json
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).parent


def value(tag, shape, first=0):
    """value(tag, i) in [-1, 1) for i = first, first + 1, ... in row-major order over `shape`, as float32."""
    mask = np.uint64(0xFFFFFFFF)
    count = int(np.prod(shape))
    i = np.arange(first, first + count, dtype=np.uint64)
    h = (i * np.uint64(2654435761) + np.uint64(tag * 40503 + 12345)) & mask
    h ^= h >> np.uint64(15)
    h = (h * np.uint64(2246822519)) & mask
    h ^= h >> np.uint64(13)
    v = (h >> np.uint64(8)).astype(np.float32) / np.float32(2**24) * np.float32(2) - np.float32(1)
    return v.reshape(shape)


def numbers(tensor, digits=9):
    """The tensor's elements in row-major order, each rounded to `digits` significant digits."""
    return [float(f"{v:.{digits}g}") for v in np.asarray(tensor, dtype=np.float64).ravel()]


def write(name, cases):
    """Writes the cases, one line each, to the file `name` beside this script."""
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    path = HERE / name
    path.write_text(f"[\n{lines}\n]\n")
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")
