"""Random networks: convolutional, linear and recurrent ones in turn, drawn by a seed, ddl and PyTorch in alternation on
one core. Used by `compare --random N --seed S`."""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TURNS = 3
SECONDS = 0.7  # that a measurement takes, about


def convolutional(draw):
    """Blocks of convolution, perhaps a norm, an activation, perhaps a pooling; then global pooling or a linear layer."""
    side, channels = draw.choice([8, 14, 16, 24, 32, 48, 97]), draw.choice([1, 3, 8, 16, 32])
    shape, layers = [channels, side, side], []
    for _ in range(draw.randint(1, 3 if side < 48 else 2)):
        kernel = draw.choice([[1, 1], [3, 3], [3, 3], [3, 3], [5, 5], [7, 7], [5, 1], [1, 5]])
        stride = draw.choice([1, 1, 1, 2, 3])
        outputs = draw.choice([8, 16, 24, 32, 48, 64, 100, 128])
        padding = [k // 2 for k in kernel] if draw.random() < 0.7 else [0, 0]
        size = [(n + 2 * p - k) // stride + 1 for n, p, k in zip(shape[1:], padding, kernel)]
        if min(size) < 2:
            break
        layers.append({"type": "conv2d", "out_channels": outputs, "kernel_size": kernel, "stride": stride, "padding": padding})
        if draw.random() < 0.5:
            layers.append({"type": "batch_norm2d"})
        layers.append({"type": draw.choice(["relu", "relu", "relu", "gelu", "leaky_relu"])})
        shape = [outputs, *size]
        if draw.random() < 0.4 and min(size) >= 4:
            layers.append({"type": draw.choice(["max_pool2d", "max_pool2d", "avg_pool2d"]), "kernel_size": 2})
            shape = [outputs, size[0] // 2, size[1] // 2]
    if draw.random() < 0.5 or shape[0] * shape[1] * shape[2] > 20_000:
        layers.append({"type": "global_avg_pool2d"})
    layers += [{"type": "flatten"}, {"type": "linear", "out_features": 10}]
    return [channels, side, side], layers, draw.choice([16, 32, 64, 128])


def linear(draw):
    """Linear layers with an activation, perhaps a norm or dropout before it."""
    features, layers = draw.choice([16, 60, 64, 128, 500, 784, 1024]), []
    for _ in range(draw.randint(1, 4)):
        layers.append({"type": "linear", "out_features": draw.choice([32, 64, 128, 256, 500, 512, 1024, 2048])})
        if draw.random() < 0.35:
            layers.append({"type": draw.choice(["batch_norm1d", "layer_norm"])})
        layers.append({"type": draw.choice(["relu", "relu", "gelu", "tanh"])})
        if draw.random() < 0.2:
            layers.append({"type": "dropout", "p": 0.2})
    return [features], [*layers, {"type": "linear", "out_features": 10}], draw.choice([16, 32, 64, 128, 256])


def recurrent(draw):
    """One or two LSTM layers, the last hidden state to a linear layer."""
    steps, features = draw.choice([10, 30, 60, 100, 200]), draw.choice([1, 4, 16, 64, 128])
    lstm = {"type": "lstm", "hidden_size": draw.choice([32, 64, 100, 128, 200, 256, 400]), "num_layers": draw.choice([1, 1, 2])}
    return [steps, features], [lstm, {"type": "linear", "out_features": 10}], draw.choice([16, 32, 64, 128])


KINDS = [convolutional, linear, recurrent]


def networks(count, seed):
    """Networks number 0 to `count`: each is drawn by its own seed, so that it stays what it is in a longer list."""
    for number in range(count):
        draw = random.Random(1_000_003 * seed + number)
        shape, layers, batch = KINDS[number % len(KINDS)](draw)
        optimizer = draw.choice([{"type": "sgd", "lr": 0.01}, {"type": "sgd", "lr": 0.01, "momentum": 0.9}, {"type": "adam", "lr": 0.001}])
        yield {"number": number, "shape": shape, "layers": layers, "batch": batch, "optimizer": optimizer}


def described(network):
    """A network in a line."""
    def layer(spec):
        sizes = "x".join(str(v) for k, v in spec.items() if k not in ("type", "padding", "p"))
        return spec["type"] + (f" {sizes}" if sizes else "")
    shape = "x".join(map(str, network["shape"]))
    momentum = " momentum" if network["optimizer"].get("momentum") else ""
    return f"{shape} batch {network['batch']} {network['optimizer']['type']}{momentum}: " + ", ".join(map(layer, network["layers"]))


def job(network):
    """The network as a job file."""
    def value(v):
        return f'"{v}"' if isinstance(v, str) else str(v).lower() if isinstance(v, bool) else str(v)
    table = lambda t: "{ " + ", ".join(f"{k} = {value(v)}" for k, v in t.items()) + " }"
    layers = ",\n  ".join(map(table, network["layers"]))
    optimizer = "\n".join(f"{k} = {value(v)}" for k, v in network["optimizer"].items())
    return (
        f'name = "random-{network["number"]}"\nseed = 1\n\n[data]\nsource = "synthetic"\nshape = {network["shape"]}\n'
        f'samples = {8 * network["batch"]}\ntest_samples = {network["batch"]}\n\n[model]\nlayers = [\n  {layers},\n]\n\n'
        f'[loss]\ntype = "cross_entropy"\n\n[optimizer]\n{optimizer}\n\n[train]\nepochs = 1\nbatch_size = {network["batch"]}\n'
    )


class Torch:
    """PyTorch on a network, in a process that stays, so that its start is not measured."""

    def __init__(self, venv, network, tcmalloc):
        own = {"OMP_NUM_THREADS": "1", **({"LD_PRELOAD": tcmalloc} if tcmalloc else {})}
        self.process = subprocess.Popen(
            [venv / "bin/python", HERE / "random_step.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **own})
        self.ask(network)

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline() or sys.exit("PyTorch ended"))

    def samples_per_second(self, steps):
        return self.ask(steps)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ddl_samples_per_second(ddl, path, steps):
    command = [ddl, "bench", "step", path, "--json", f"--steps={steps}", "--warmup=3", "--repeats=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{path}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])["samples_per_second"]


def compare(ddl, venv, tcmalloc, count, seed, out):
    """Prints a line a network, and the slowest and the median; writes all to `out`."""
    rows = []
    for network in networks(count, seed):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "job.toml"
            path.write_text(job(network))
            torch, batch = Torch(venv, network, tcmalloc), network["batch"]
            steps = lambda rate: max(3, int(SECONDS * rate / batch))
            of_torch, of_ddl = steps(torch.samples_per_second(3)), steps(ddl_samples_per_second(ddl, path, 3))
            pairs = [(ddl_samples_per_second(ddl, path, of_ddl), torch.samples_per_second(of_torch)) for _ in range(TURNS)]
            torch.close()
        mine, theirs = (statistics.median(column) for column in zip(*pairs))
        rows.append({**network, "ddl": mine, "torch": theirs, "ratio": mine / theirs})
        print(f"{network['number']:>4} {mine / theirs:6.2f}  ddl {mine:>11,.0f}  torch {theirs:>11,.0f}  {described(network)}", flush=True)
        out.write_text(json.dumps({"seed": seed, "networks": rows}, indent=1) + "\n")
    ratios = sorted(row["ratio"] for row in rows)
    print(f"\n{len(ratios)} networks of seed {seed}: smallest {ratios[0]:.2f}, median {statistics.median(ratios):.2f}, "
          f"{sum(ratio < 1 for ratio in ratios)} below 1; {out}")
