"""PyTorch on one network of random_networks.py: reads it as a line of JSON, then numbers of steps, and answers each with
samples/s, images in the faster of torch's two orders of memory."""

import json
import math
import sys
import time

import torch
from torch import nn


class LastStep(nn.Module):
    """A recurrent layer of which only the last hidden state goes on."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0][:, -1]


def layer(spec, shape):
    """The torch layer for one of ddl's, for samples of `shape`."""
    spec = {key: tuple(v) if isinstance(v, list) else v for key, v in spec.items()}
    match spec.pop("type"):
        case "conv2d":
            return nn.Conv2d(shape[0], **spec)
        case "linear":
            return nn.Linear(shape[-1], **spec)
        case "lstm":
            return LastStep(nn.LSTM(shape[1], **spec, batch_first=True))
        case "gru":
            return LastStep(nn.GRU(shape[1], **spec, batch_first=True))
        case "batch_norm2d":
            return nn.BatchNorm2d(shape[0])
        case "batch_norm1d":
            return nn.BatchNorm1d(shape[0])
        case "layer_norm":
            return nn.LayerNorm(shape)
        case "global_avg_pool2d":
            return nn.AdaptiveAvgPool2d(1)
        case kind:
            names = {"max_pool2d": nn.MaxPool2d, "avg_pool2d": nn.AvgPool2d, "relu": nn.ReLU, "gelu": nn.GELU,
                     "leaky_relu": nn.LeakyReLU, "tanh": nn.Tanh, "dropout": nn.Dropout, "flatten": nn.Flatten}
            return names[kind](**spec)


class Training:
    """A network and its steps."""

    def __init__(self, network, channels_last):
        torch.manual_seed(1)
        shape, modules = network["shape"], []
        for spec in network["layers"]:
            modules.append(layer(spec, shape))
            shape = list(modules[-1](torch.zeros(2, *shape)).shape[1:])
        self.model, self.batch = nn.Sequential(*modules), network["batch"]
        self.x = torch.randn(8 * self.batch, *network["shape"])
        self.y = torch.randint(10, (8 * self.batch,))
        if channels_last:
            self.model, self.x = (each.to(memory_format=torch.channels_last) for each in (self.model, self.x))
        settings = dict(network["optimizer"])
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[settings.pop("type")]
        self.optimizer = kind(self.model.parameters(), **settings)
        self.loss = nn.CrossEntropyLoss()

    def samples_per_second(self, steps):
        """Of `steps` steps on shuffled batches."""
        began = time.perf_counter()
        for step in range(steps):
            ids = torch.randperm(len(self.x))[: self.batch]
            loss = self.loss(self.model(self.x.index_select(0, ids)), self.y.index_select(0, ids))
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()
        return steps * self.batch / (time.perf_counter() - began)


torch.set_num_threads(1)
network = json.loads(sys.stdin.readline())
trainings = [Training(network, False)]
if len(network["shape"]) == 3:
    trainings.append(Training(network, True))
for training in trainings:
    training.samples_per_second(3)
print("true", flush=True)
for line in sys.stdin:
    rates = [training.samples_per_second(json.loads(line)) for training in trainings]
    assert all(map(math.isfinite, rates))
    print(json.dumps(max(rates)), flush=True)
