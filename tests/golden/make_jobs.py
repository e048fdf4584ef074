"""Makes jobs.json: the losses of 20 unshuffled steps of five whole networks, by PyTorch in float32.

Run: python tests/golden/make_jobs.py            (made with torch 2.15.0, CPU; one minute on one thread)
     python tests/golden/make_jobs.py --check DIR
         computes the case that DIR is named for again, from data.npz and weights.safetensors in DIR, and compares;
         GOLDEN_JOBS_DIR=PARENT cargo test --release --test golden_jobs keeps these files, in one folder a case.

160 samples, batches of 16 in two micro-batches of 8, two epochs. A micro-batch is one forward and backward with its own
batch-norm statistics; its mean loss counts by 8/16, gradients are summed, then one update is made.

A case is { name, loss, optimizer, input, layers, tensors, losses, deviation, value }: `layers` as in the job file,
`losses` the loss of each global batch before its update, `value` a few (tag, i, value) to check the formula itself.
`tensors` says how weights and running statistics start: offset + bound * value(tag, i), in f32. bound is
1 / sqrt(fan_in), 1 / sqrt(hidden_size) in an LSTM, 0 for the other biases and for norms.

`deviation` says for each step how far rounding alone may take a right program from these losses: the largest relative
difference, up to that step, of a float64 run and of three runs in which every 3x3 convolution of 16 or more channels
errs (output, dx and dweight) by up to 5e-6 of the largest element, as Winograd's F(4x4, 3x3) does. Such errors flip a
few ReLU and pooling decisions, and training then amplifies them; most with batch norm, and with Adam, whose first
updates depend on a gradient's sign alone. So the first steps are compared tightly, later ones as the network allows;
and where that is more than 1e-4, a second case has a smaller rate, at which all 20 steps are held to 1e-4.

  sample n has class c = (7 n) % 10, and x[n, i] = 0.5 * value(1, n * len + i) + 0.25 * value(50 + c, i)
  targets: c, or for mse (N, 1): 0.5 * value(60, c) + 0.125 * value(3, n)
"""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
from formula import HERE, numbers, value, write
from make_layers import NORMS, sequential
from safetensors.torch import load_file
from torch import nn

torch.set_num_threads(1)

SAMPLES, BATCH, MICRO_BATCH, EPOCHS = 160, 16, 8, 2


def conv(out_channels, padding=0):
    return {"type": "conv2d", "out_channels": out_channels, "kernel_size": 3, "padding": padding}


def linear(out_features):
    return {"type": "linear", "out_features": out_features}


RELU, FLATTEN, NORM = {"type": "relu"}, {"type": "flatten"}, {"type": "batch_norm2d"}
POOL = {"type": "max_pool2d", "kernel_size": 2}
DROPOUT = {"type": "dropout", "p": 0.0}


def norm_block(channels):
    return [conv(channels, 1), NORM, RELU, conv(channels, 1), NORM, RELU, POOL, DROPOUT]


W1 = [conv(32), RELU, conv(64), RELU, POOL, DROPOUT, FLATTEN, linear(128), RELU, DROPOUT, linear(10)]
W2 = [layer for channels in (32, 64, 128) for layer in (conv(channels, 1), RELU, POOL)]
W2 += [FLATTEN, linear(512), RELU, linear(10)]
W3 = [*norm_block(32), *norm_block(64), FLATTEN, linear(128), RELU, DROPOUT, linear(10)]
W4 = [{"type": "lstm", "hidden_size": 64, "num_layers": 2}, linear(1)]
W5 = [linear(128), RELU, linear(128), RELU, linear(1)]

NETWORKS = {
    "mnist_cnn": ([1, 28, 28], W1, "cross_entropy"),
    "cifar10_simplecnn": ([3, 32, 32], W2, "cross_entropy"),
    "cifar10_bncnn": ([3, 32, 32], W3, "cross_entropy"),
    "sp500_lstm": ([60, 1], W4, "mse"),
    "sp500_mlp": ([60], W5, "mse"),
}
VALUES = [(1, 0), (10, 7), (59, 3071), (1, 491519)]
OPTIMIZERS = {
    "sgd": {"type": "sgd", "lr": 0.01, "momentum": 0.9},
    "adam": {"type": "adam", "lr": 0.001},
}


# Rates at which rounding alone stays far below 1e-4 over all steps, where at the job's own rate it does not.
GENTLE = {
    ("mnist_cnn", "adam"): 3e-5,
    ("cifar10_simplecnn", "adam"): 3e-5,
    ("cifar10_bncnn", "sgd"): 1e-4,
    ("cifar10_bncnn", "adam"): 3e-6,
}


def data(shape, loss):
    """x (N, *shape) and the targets, as numpy arrays."""
    n, length = np.arange(SAMPLES), math.prod(shape)
    classes = 7 * n % 10
    patterns = np.stack([value(50 + c, (length,)) for c in range(10)])
    noise = value(1, (SAMPLES, length))
    x = (np.float32(0.5) * noise + np.float32(0.25) * patterns[classes]).reshape(SAMPLES, *shape)
    if loss == "cross_entropy":
        return x, classes.astype(np.int64)
    level, jitter = value(60, (10,))[classes], value(3, (SAMPLES,))
    return x, (np.float32(0.5) * level + np.float32(0.125) * jitter).reshape(SAMPLES, 1)


def tensors(model):
    """Key, shape, tag, bound and offset of every parameter and running statistic."""
    result = []

    def add(key, tensor, bound, offset):
        tag = 10 + len(result)
        result.append({"key": key, "shape": list(tensor.shape), "tag": tag, "bound": bound, "offset": offset})

    for key, p in model.named_parameters():
        owner = model.get_submodule(key.rpartition(".")[0])
        if isinstance(owner, NORMS):
            add(key, p, 0.0, float(key.endswith("weight")))
        elif isinstance(owner, nn.LSTM):
            add(key, p, float(np.float32(1 / math.sqrt(owner.hidden_size))), 0.0)
        else:
            fan_in = math.prod(p.shape[1:])
            add(key, p, 0.0 if key.endswith("bias") else float(np.float32(1 / math.sqrt(fan_in))), 0.0)
    for key, b in model.named_buffers():
        if not key.endswith("num_batches_tracked"):
            add(key, b, 0.0, float(key.endswith("running_var")))
    return result


def weights(model):
    """The tensors themselves, by key."""
    return {
        t["key"]: torch.from_numpy(np.float32(t["offset"]) + np.float32(t["bound"]) * value(t["tag"], t["shape"]))
        for t in tensors(model)
    }


def losses(model, x, y, loss, optimizer, dtype):
    """The loss of each global batch before its update."""
    model.to(dtype).train()
    x = torch.from_numpy(x).to(dtype)
    y = torch.from_numpy(y) if loss == "cross_entropy" else torch.from_numpy(y).to(dtype)
    loss_function = nn.CrossEntropyLoss() if loss == "cross_entropy" else nn.MSELoss()
    kind = torch.optim.SGD if optimizer["type"] == "sgd" else torch.optim.Adam
    optim = kind(model.parameters(), **{key: v for key, v in optimizer.items() if key != "type"})
    result = []
    for _ in range(EPOCHS):
        for batch in range(0, SAMPLES, BATCH):
            optim.zero_grad()
            total = 0.0
            for first in range(batch, batch + BATCH, MICRO_BATCH):
                part = slice(first, first + MICRO_BATCH)
                share = loss_function(model(x[part]), y[part]) * (MICRO_BATCH / BATCH)
                share.backward()
                total += share.item()
            optim.step()
            result.append(total)
    return np.array(result)


def build(layers, shape, state):
    """The network with these weights."""
    model = sequential(layers, shape)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)
    return model


def perturb(model, seed):
    """Makes the wide 3x3 convolutions err as Winograd's do."""
    generator = torch.Generator().manual_seed(seed)

    def err(t):
        noise = 2 * torch.rand(t.shape, generator=generator) - 1
        return t + 5e-6 * t.abs().max() * noise.to(t.dtype)

    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.in_channels >= 16:
            part.register_forward_hook(lambda _, x, y: err(y))
            part.register_full_backward_hook(lambda _, dx, dy: tuple(None if t is None else err(t) for t in dx))
            part.weight.register_hook(err)
    return model


def settings(name, optimizer):
    """The optimizer's table for a network, or for `<network>_gentle` at its gentle rate."""
    rate = {"lr": GENTLE[name.removesuffix("_gentle"), optimizer]} if name.endswith("_gentle") else {}
    return {**OPTIMIZERS[optimizer], **rate}


def case(network, optimizer):
    """One case of the file."""
    shape, layers, loss = NETWORKS[network.removesuffix("_gentle")]
    x, y = data(shape, loss)
    state = weights(sequential(layers, shape))

    def run(dtype=torch.float32, change=lambda model: model):
        return losses(change(build(layers, shape, state)), x, y, loss, settings(network, optimizer), dtype)

    expected = run()
    others = [run(dtype=torch.float64)]
    if any(layer["type"] == "conv2d" for layer in layers):
        others += [run(change=lambda model, seed=seed: perturb(model, seed)) for seed in range(3)]
    deviation = np.maximum.accumulate(np.max([np.abs(other - expected) / expected for other in others], axis=0))
    growth = " ".join(f"{deviation[step]:.0e}" for step in (1, 4, 9, 19))
    print(f"{network}_{optimizer}: {expected[0]:.6f} -> {expected[-1]:.6f}, deviation {growth}", flush=True)
    return {
        "name": f"{network}_{optimizer}",
        "loss": loss,
        "optimizer": settings(network, optimizer),
        "input": shape,
        "layers": layers,
        "tensors": tensors(sequential(layers, shape)),
        "losses": numbers(expected),
        "deviation": numbers(deviation, 2),
        "value": [[tag, i, float(value(tag, (1,), first=i)[0])] for tag, i in VALUES],
    }


def check(folder):
    """Computes a case again from the files of the Rust test."""
    folder = pathlib.Path(folder)
    network, _, optimizer = folder.name.rpartition("_")
    shape, layers, loss = NETWORKS[network.removesuffix("_gentle")]
    with np.load(folder / "data.npz") as arrays:
        x, y = arrays["x_train"], arrays["y_train"]
    expected_x, expected_y = data(shape, loss)
    assert x.dtype == expected_x.dtype and np.array_equal(x, expected_x), "x_train differs"
    assert y.dtype == expected_y.dtype and np.array_equal(y, expected_y), "y_train differs"
    state = load_file(folder / "weights.safetensors")
    for name, expected in weights(sequential(layers, shape)).items():
        assert torch.equal(state[name], expected), f"{name} differs"
    found = losses(build(layers, shape, state), x, y, loss, settings(network, optimizer), torch.float32)
    cases = json.loads((HERE / "jobs.json").read_text())
    expected = np.array(next(case["losses"] for case in cases if case["name"] == folder.name))
    difference = np.max(np.abs(found - expected) / np.abs(expected))
    print(f"{folder.name}: largest relative difference {difference:.1e}")
    assert difference < 1e-6


if __name__ == "__main__":
    # make_layers sets float64; here every dtype is given, and modules are made in float32.
    torch.set_default_dtype(torch.float32)
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", metavar="DIR")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
    else:
        names = [(network, optimizer) for network in NETWORKS for optimizer in OPTIMIZERS]
        names += [(f"{network}_gentle", optimizer) for network, optimizer in GENTLE]
        write("jobs.json", [case(*name) for name in names])
