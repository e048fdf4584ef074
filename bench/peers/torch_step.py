"""PyTorch on a job of ddl: whole training steps, or a whole training with --train.

One process:  python torch_step.py ../../jobs/cifar10-simplecnn.toml --threads 1 --channels-last
DDP (gloo):   torchrun --standalone --nproc-per-node 2 torch_step.py ../../jobs/cifar10-simplecnn.toml
The network:  python torch_step.py ../../jobs/cifar10-simplecnn.toml --check
Prints one JSON object.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from job import Job

RANK, WORLD = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class LastStep(nn.LSTM):
    """An LSTM of which only the last hidden state goes on."""

    def forward(self, x):
        return super().forward(x)[0][:, -1]


def layer(spec, shape):
    """The torch layer for one of the job's, and the shape of a sample after it."""
    spec = dict(spec)
    match spec.pop("type"):
        case "conv2d":
            side = lambda n: n + 2 * spec.get("padding", 0) - spec["kernel_size"] + 1
            return nn.Conv2d(shape[0], **spec), (spec["out_channels"], side(shape[1]), side(shape[2]))
        case "batch_norm2d":
            return nn.BatchNorm2d(shape[0], **spec), shape
        case "relu":
            return nn.ReLU(), shape
        case "dropout":
            return nn.Dropout(**spec), shape
        case "max_pool2d":
            return nn.MaxPool2d(**spec), (shape[0], *(n // spec["kernel_size"] for n in shape[1:]))
        case "flatten":
            return nn.Flatten(), (torch.Size(shape).numel(),)
        case "linear":
            return nn.Linear(shape[-1], **spec), (*shape[:-1], spec["out_features"])
        case "lstm":
            return LastStep(shape[1], **spec, batch_first=True), (spec["hidden_size"],)
        case other:
            raise SystemExit(f"no {other} here yet: add it to layer() in torch_step.py")


def build(job):
    layers, shape = [], job.shape
    for spec in job.layers:
        module, shape = layer(spec, shape)
        layers.append(module)
    return nn.Sequential(*layers)


class Training:
    """A network, its data and its steps on this rank."""

    def __init__(self, job, a):
        torch.set_num_threads(a.threads)
        torch.manual_seed(a.seed)
        if WORLD > 1:
            dist.init_process_group("gloo")
        self.job, self.channels_last = job, a.channels_last and job.images
        self.batch = job.batch if a.weak else job.batch // WORLD  # of this rank
        self.x, self.y = self.tensors("train", a.samples)
        self.model = self.network = build(job)
        if self.channels_last:
            self.model = self.network = self.model.to(memory_format=torch.channels_last)
        if WORLD > 1:
            self.model = nn.parallel.DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        if a.compile:
            self.model = torch.compile(self.model)
        settings = dict(job.optimizer)
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[settings.pop("type")]
        self.optimizer = kind(self.network.parameters(), **settings, fused=a.fused or None)
        self.loss = {"cross_entropy": nn.CrossEntropyLoss, "mse": nn.MSELoss}[job.loss]()
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=a.bf16)

    def tensors(self, part, samples):
        """Inputs, images in the order of memory that the network works in, and targets."""
        x, y = map(torch.from_numpy, self.job.load(part, samples))
        return (x.permute(0, 2, 3, 1).contiguous() if self.channels_last else x), y

    def gather(self, ids):
        x = self.x.index_select(0, ids)
        return (x.permute(0, 3, 1, 2) if self.channels_last else x), self.y.index_select(0, ids)

    def step(self, ids):
        x, y = self.gather(ids)
        with self.autocast:
            loss = self.loss(self.model(x).float(), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss

    def timed(self, steps, seed):
        """Seconds of `steps` steps; on several ranks until the last is done."""
        order = torch.from_numpy(self.job.order(len(self.x), self.batch * WORLD, steps, seed))
        mine = order[:, RANK * self.batch : (RANK + 1) * self.batch].contiguous()
        barrier()
        began = time.perf_counter()
        for ids in mine:
            loss = self.step(ids)
        loss.item()
        barrier()
        return time.perf_counter() - began

    def epoch(self, seed):
        """One pass over all the data, its ragged end included."""
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        self.model.train()
        for batch in order.split(self.batch * WORLD):
            if len(batch) >= WORLD:
                self.step(batch.tensor_split(WORLD)[RANK])

    def accuracy(self, x, y):
        """Share of right answers."""
        self.network.eval()
        with torch.inference_mode(), self.autocast:
            right = 0
            for images, classes in zip(x.split(500), y.split(500)):
                images = images.permute(0, 3, 1, 2) if self.channels_last else images
                right += (self.network(images).argmax(1) == classes).sum().item()
        return right / len(y)

    def save(self, path):
        """Network and optimizer, whole or absent."""
        torch.save({"model": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}, f"{path}.tmp")
        os.replace(f"{path}.tmp", path)


def barrier():
    if WORLD > 1:
        dist.barrier()


def train(training, a):
    """As ddl does: each epoch ends with the test accuracy and a checkpoint."""
    test = training.tensors("test", 1000)
    for epoch in range(a.epochs):
        training.epoch(1000 * a.seed + epoch)
        if RANK == 0:
            accuracy = training.accuracy(*test)
            training.save(Path(a.out) / f"epoch-{epoch + 1}.pt")
        barrier()
    return {"epochs": a.epochs, "test_accuracy": accuracy if RANK == 0 else None}


def bench(training, a):
    training.timed(a.warmup, a.seed)
    seconds = training.timed(a.steps, a.seed + 1)
    return {"steps": a.steps, "samples_per_second": a.steps * training.batch * WORLD / seconds}


def check(job):
    """The table to hold beside that of `ddl train JOB --dry-run`."""
    network = build(job)
    for key, module in network.named_children():
        print(f"{key:>3} {job.layers[int(key)]['type']:<14} {sum(p.numel() for p in module.parameters()):>12,}")
    print(f"    {'total':<14} {sum(p.numel() for p in network.parameters()):>12,}")
    print(f"batch {job.batch}, {job.loss}, {job.optimizer}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("job")
    p.add_argument("--check", action="store_true", help="print the layers and their parameters, and end")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--warmup", type=int, default=10, help="steps before the clock starts")
    p.add_argument("--samples", type=int, default=50_000, help="how many to make where the real ones are not there")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--channels-last", action="store_true", help="images as (N, H, W, C) in memory")
    p.add_argument("--compile", action="store_true", help="torch.compile")
    p.add_argument("--fused", action="store_true", help="the optimizer's fused kernel")
    p.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    p.add_argument("--weak", action="store_true", help="the job's batch on every rank: another job, a larger batch")
    p.add_argument("--train", action="store_true", help="train, test and save instead of timing steps")
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--out", default=".", help="folder for --train's checkpoints")
    a = p.parse_args()
    job = Job(a.job)
    if a.check:
        return check(job)
    training = Training(job, a)
    result = (train if a.train else bench)(training, a)
    if RANK == 0:
        print(json.dumps({
            "job": job.name, "version": torch.__version__, "ranks": WORLD, "threads": a.threads,
            "batch": training.batch * WORLD, "samples": len(training.x),
            "parameters": sum(p.numel() for p in training.network.parameters()), **result,
        }), flush=True)
    if WORLD > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
