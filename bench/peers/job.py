"""A job file of ddl as the peers see it: layers, settings and data. They build their networks from the same text."""

import gzip
import tomllib
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

IMAGES = {  # source: shape (C, H, W), mean and deviation by channel, as ddl's defaults
    "mnist": ((1, 28, 28), [0.1307], [0.3081]),
    "cifar10": ((3, 32, 32), [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
}
KNOWN = {  # tables and keys that the peers follow; another one would make it another job
    "data": {"source", "path", "column", "window", "horizon", "normalize", "train_fraction"},
    "model": {"layers"},
    "loss": {"type"},
    "optimizer": {"type", "lr", "momentum"},
    "schedule": {"type"},  # not followed: it changes the rate, not the work of a step
    "train": {"epochs", "batch_size", "micro_batch", "precision"},
}


class Job:
    """What `jobs/NAME.toml` says."""

    def __init__(self, path):
        with open(path, "rb") as file:
            text = tomllib.load(file)
        for table, keys in text.items():
            strange = set(keys) - KNOWN.get(table, set()) if isinstance(keys, dict) else set()
            if strange:
                raise SystemExit(f"{path}: the peers do not know [{table}] {', '.join(sorted(strange))}")
        self.name, self.seed = text["name"], text["seed"]
        self.layers, self.optimizer, self.loss = text["model"]["layers"], text["optimizer"], text["loss"]["type"]
        self.batch, self.epochs = text["train"]["batch_size"], text["train"]["epochs"]
        self.source, self.folder = text["data"]["source"], ROOT / text["data"]["path"]
        self.images = self.source in IMAGES
        self.shape = IMAGES[self.source][0] if self.images else (text["data"]["window"], 1)

    def load(self, part, samples):
        """Samples (N, ...) as normalised f32, images (N, C, H, W), and targets: classes (N,) or values (N, 1).

        The real images where they are there; otherwise, and for series, `samples` made ones of the same shape, which
        take the same time.
        """
        read = {"mnist": _mnist, "cifar10": _cifar10}.get(self.source)
        found = read and read(self.folder, part)
        if found:
            pixels, y = found
            _, mean, std = IMAGES[self.source]
            x = pixels.astype(np.float32)
            x /= 255
            x -= np.array(mean, np.float32)[:, None, None]
            x /= np.array(std, np.float32)[:, None, None]
            return x, y.astype(np.int64)
        make = np.random.default_rng(1)
        x = make.random((samples, *self.shape), np.float32)
        return x, make.integers(0, 10, samples) if self.images else x[:, -1] * 0.9

    def order(self, samples, batch, steps, seed):
        """Shuffled indices (steps, batch): pass after pass, each without its ragged end."""
        shuffle = np.random.default_rng(seed)
        whole = samples - samples % batch
        passes = -(-steps * batch // whole)
        order = np.concatenate([shuffle.permutation(samples)[:whole] for _ in range(passes)])
        return order[: steps * batch].reshape(steps, batch)


def _mnist(folder, part):
    def idx(kind, dims):
        for path in (folder / f"{prefix}-{kind}-idx{dims}-ubyte{end}" for end in ("", ".gz")):
            if path.exists():
                raw = (gzip.open if path.suffix == ".gz" else open)(path, "rb").read()
                shape = np.frombuffer(raw, ">u4", dims, 4)
                return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)

    prefix = {"train": "train", "test": "t10k"}[part]
    pixels, labels = idx("images", 3), idx("labels", 1)
    return None if pixels is None or labels is None else (pixels[:, None], labels)


def _cifar10(folder, part):
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if part == "train" else ["test_batch.bin"]
    if not all((folder / name).exists() for name in names):
        return None
    records = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
