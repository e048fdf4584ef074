"""Makes layers.json: forward and backward of every layer, by PyTorch in float64.

Run: python tests/golden/make_layers.py          (made with torch 2.15.0, CPU)

A case is { name, layer, input, m, y, dx, dparams, state }: `layer` as in the job file, `input` the shape of one sample
(C, H, W), (T, F) or (N), `m` the samples. All arrays are flat, row-major, in torch's layout ((m, C, H, W) for images).

  x       = value(1, i)
  dy      = value(2, i)
  k-th parameter, in the order of `dparams` (torch's named_parameters):
            0.5 * value(10 + k, i), and 1 + 0.5 * value(10 + k, i) for the weight of a norm

`dparams` holds the parameters' gradients, `state` the running statistics after this one training pass, which started
from running_mean 0 and running_var 1.
"""

import torch
from formula import numbers, value, write
from torch import nn

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)

# Rounding must stay well below the tests' 1e-9.
DIGITS = 11

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)


class SequenceNorm(nn.BatchNorm1d):
    """BatchNorm1d over (M, T, F): each feature over samples and time."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Lstm(nn.LSTM):
    """All hidden states, or the last layer's final ones: forward's, then backward's."""

    def __init__(self, *args, return_sequences=False, **keys):
        super().__init__(*args, batch_first=True, **keys)
        self.return_sequences = return_sequences

    def forward(self, x):
        y, (h, _) = super().forward(x)
        if self.return_sequences:
            return y
        return torch.cat([h[-2], h[-1]], dim=1) if self.bidirectional else h[-1]


class Gru(nn.GRU):
    """As Lstm."""

    def __init__(self, *args, return_sequences=False, **keys):
        super().__init__(*args, batch_first=True, **keys)
        self.return_sequences = return_sequences

    def forward(self, x):
        y, h = super().forward(x)
        if self.return_sequences:
            return y
        return torch.cat([h[-2], h[-1]], dim=1) if self.bidirectional else h[-1]


class Residual(nn.Module):
    """layers(x) + shortcut(x); an empty shortcut is the identity."""

    def __init__(self, layers, shortcut):
        super().__init__()
        self.layers = layers
        self.shortcut = shortcut

    def forward(self, x):
        return self.layers(x) + self.shortcut(x)


def pair(v):
    return tuple(v) if isinstance(v, list) else v


def sequential(layers, shape):
    """The modules of a list of layers for samples of `shape`."""
    modules = []
    for layer in layers:
        modules.append(build(layer, shape))
        shape = list(modules[-1](torch.zeros(2, *shape)).shape[1:])
    return nn.Sequential(*modules)


def build(layer, shape):
    """The module of one layer for samples of `shape`."""
    keys = {key: pair(v) for key, v in layer.items() if key != "type"}
    match layer["type"]:
        case "linear":
            return nn.Linear(shape[-1], **keys)
        case "conv2d":
            return nn.Conv2d(shape[0], **keys)
        case "batch_norm2d":
            return nn.BatchNorm2d(shape[0], **keys)
        case "batch_norm1d":
            return SequenceNorm(shape[1], **keys) if len(shape) == 2 else nn.BatchNorm1d(shape[0], **keys)
        case "layer_norm":
            return nn.LayerNorm(shape[1:] if len(shape) == 2 else shape, **keys)
        case "max_pool2d":
            return nn.MaxPool2d(**keys)
        case "avg_pool2d":
            return nn.AvgPool2d(**keys)
        case "adaptive_avg_pool2d":
            return nn.AdaptiveAvgPool2d(**keys)
        case "global_avg_pool2d":
            return nn.AdaptiveAvgPool2d(1)
        case "flatten":
            return nn.Flatten()
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(**keys)
        case "gelu":
            return nn.GELU(**keys)
        case "tanh":
            return nn.Tanh()
        case "sigmoid":
            return nn.Sigmoid()
        case "dropout":
            return nn.Dropout(**keys)
        case "lstm":
            return Lstm(shape[1], **keys)
        case "gru":
            return Gru(shape[1], **keys)
        case "residual":
            parts = [sequential(layer.get(part, []), shape) for part in ("layers", "shortcut")]
            return Residual(*parts)
    raise ValueError(layer["type"])


def set_parameters(module):
    """Every parameter by the formula, every running statistic to its start."""
    for k, (name, p) in enumerate(module.named_parameters()):
        owner = module.get_submodule(name.rpartition(".")[0])
        scaled = 0.5 * torch.from_numpy(value(10 + k, p.shape)).double()
        p.data = 1 + scaled if isinstance(owner, NORMS) and name.endswith("weight") else scaled
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.reset_running_stats()


def case(name, layer, shape, m):
    """One case of the file."""
    module = build(layer, shape)
    set_parameters(module)
    module.train()
    x = torch.from_numpy(value(1, (m, *shape))).double().requires_grad_()
    y = module(x)
    y.backward(torch.from_numpy(value(2, y.shape)).double())
    statistics = {key: b for key, b in module.named_buffers() if not key.endswith("num_batches_tracked")}
    return {
        "name": name,
        "layer": layer,
        "input": shape,
        "m": m,
        "output": list(y.shape[1:]),
        "y": numbers(y.detach(), DIGITS),
        "dx": numbers(x.grad, DIGITS),
        "dparams": {key: numbers(p.grad, DIGITS) for key, p in module.named_parameters()},
        "state": {key: numbers(b, DIGITS) for key, b in statistics.items()},
    }


def conv(out_channels, kernel_size, **keys):
    return {"type": "conv2d", "out_channels": out_channels, "kernel_size": kernel_size, **keys}


def lstm(hidden_size, **keys):
    return {"type": "lstm", "hidden_size": hidden_size, **keys}


def gru(hidden_size, **keys):
    return {"type": "gru", "hidden_size": hidden_size, **keys}


BLOCK = [conv(4, 3, padding=1, bias=False), {"type": "batch_norm2d"}, {"type": "relu"}, conv(4, 3, padding=1)]
DOWN = [conv(5, 3, stride=2, padding=1, bias=False), {"type": "batch_norm2d"}]
SHORTCUT = [conv(5, 1, stride=2, bias=False), {"type": "batch_norm2d"}]

CASES = [
    ("linear", {"type": "linear", "out_features": 5}, [7], 3),
    ("linear_no_bias", {"type": "linear", "out_features": 33, "bias": False}, [9], 4),
    ("linear_one_output", {"type": "linear", "out_features": 1}, [18], 3),
    ("linear_sequence", {"type": "linear", "out_features": 4}, [5, 3], 2),
    ("conv2d_1x1", conv(3, 1), [3, 4, 5], 2),
    ("conv2d_1x1_wide", conv(33, 1), [16, 2, 3], 1),
    ("conv2d_1x1_20_to_16", conv(16, 1, bias=False), [20, 3, 2], 2),
    ("conv2d_3x3_one_channel", conv(16, 3, padding=1), [1, 5, 6], 1),
    ("conv2d_3x3_valid", conv(5, 3), [1, 5, 6], 3),
    ("conv2d_3x3_three_channels", conv(5, 3, padding=1, bias=False), [3, 5, 4], 3),
    ("conv2d_3x3_stride_2", conv(4, 3, stride=2, padding=1), [3, 8, 7], 2),
    ("conv2d_5x5_stride_2", conv(3, 5, stride=2, padding=2), [3, 9, 8], 2),
    ("conv2d_3x2", conv(4, [3, 2], stride=[2, 1], padding=[0, 1]), [3, 7, 5], 3),
    ("conv2d_3x3_16_valid", conv(16, 3), [16, 9, 7], 1),
    ("conv2d_3x3_17_padded", conv(17, 3, padding=1), [17, 5, 4], 2),
    ("conv2d_groups", conv(6, 3, padding=1, groups=2), [4, 5, 6], 2),
    ("conv2d_groups_wide", conv(32, 3, padding=1, groups=2), [32, 4, 4], 1),
    ("conv2d_depthwise", conv(5, 3, padding=1, groups=5), [5, 6, 4], 2),
    ("conv2d_depthwise_stride_2", conv(35, [3, 2], stride=2, groups=35, bias=False), [35, 7, 6], 2),
    ("conv2d_depthwise_twofold", conv(6, 3, padding=1, groups=3), [3, 5, 4], 2),
    ("conv2d_dilation", conv(4, 3, padding=2, dilation=2), [3, 8, 7], 2),
    ("conv2d_dilation_unequal", conv(3, [2, 3], stride=[2, 1], padding=[0, 1], dilation=[3, 2]), [2, 9, 8], 2),
    ("conv2d_dilation_groups", conv(4, 3, padding=3, dilation=3, groups=2), [4, 7, 6], 2),
    ("conv2d_dilation_depthwise", conv(3, 3, padding=2, dilation=2, groups=3), [3, 6, 7], 2),
    ("conv2d_same", conv(4, 3, padding="same"), [3, 5, 6], 2),
    ("conv2d_same_even", conv(4, [2, 4], padding="same"), [3, 5, 6], 2),
    ("conv2d_same_dilation", conv(4, [2, 3], padding="same", dilation=[3, 2]), [3, 7, 6], 2),
    ("conv2d_valid", conv(4, 3, padding="valid"), [3, 5, 6], 2),
    ("conv2d_1x1_stride_3", conv(5, 1, stride=3), [3, 8, 7], 2),
    ("batch_norm2d", {"type": "batch_norm2d"}, [3, 4, 5], 3),
    ("batch_norm2d_options", {"type": "batch_norm2d", "eps": 1e-3, "momentum": 0.3}, [5, 3, 2], 2),
    ("batch_norm2d_plain", {"type": "batch_norm2d", "affine": False}, [2, 3, 3], 3),
    ("batch_norm1d", {"type": "batch_norm1d"}, [7], 5),
    ("batch_norm1d_options", {"type": "batch_norm1d", "eps": 1e-2, "momentum": 0.25, "affine": False}, [3], 4),
    ("batch_norm1d_sequence", {"type": "batch_norm1d"}, [6, 4], 3),
    ("layer_norm", {"type": "layer_norm"}, [9], 3),
    ("layer_norm_sequence", {"type": "layer_norm", "eps": 1e-3}, [4, 6], 3),
    ("layer_norm_image", {"type": "layer_norm"}, [3, 4, 5], 2),
    ("layer_norm_plain", {"type": "layer_norm", "elementwise_affine": False}, [3, 4, 2], 2),
    ("max_pool2d", {"type": "max_pool2d", "kernel_size": 2}, [3, 6, 7], 2),
    ("max_pool2d_overlapping", {"type": "max_pool2d", "kernel_size": 3, "stride": 2, "padding": 1}, [2, 7, 6], 2),
    (
        "max_pool2d_3x2",
        {"type": "max_pool2d", "kernel_size": [3, 2], "stride": [1, 2], "padding": [1, 0]},
        [2, 5, 6],
        2,
    ),
    ("avg_pool2d", {"type": "avg_pool2d", "kernel_size": 2}, [3, 6, 7], 2),
    ("avg_pool2d_padded", {"type": "avg_pool2d", "kernel_size": 3, "stride": 2, "padding": 1}, [2, 7, 6], 2),
    (
        "avg_pool2d_without_padding",
        {"type": "avg_pool2d", "kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 1], "count_include_pad": False},
        [2, 6, 5],
        2,
    ),
    ("adaptive_avg_pool2d", {"type": "adaptive_avg_pool2d", "output_size": [3, 2]}, [2, 7, 5], 2),
    ("adaptive_avg_pool2d_square", {"type": "adaptive_avg_pool2d", "output_size": 4}, [2, 6, 3], 2),
    ("global_avg_pool2d", {"type": "global_avg_pool2d"}, [5, 3, 4], 3),
    ("flatten", {"type": "flatten"}, [3, 4, 2], 2),
    ("flatten_sequence", {"type": "flatten"}, [4, 3], 2),
    ("relu", {"type": "relu"}, [3, 2, 5], 2),
    ("leaky_relu", {"type": "leaky_relu"}, [19], 2),
    ("leaky_relu_steep", {"type": "leaky_relu", "negative_slope": 0.2}, [2, 3, 4], 2),
    ("gelu", {"type": "gelu"}, [19], 2),
    ("gelu_tanh", {"type": "gelu", "approximate": "tanh"}, [5, 4], 2),
    ("gelu_image", {"type": "gelu"}, [2, 3, 3], 2),
    ("tanh", {"type": "tanh"}, [19], 2),
    ("sigmoid", {"type": "sigmoid"}, [2, 3, 4], 2),
    ("dropout_off", {"type": "dropout", "p": 0.0}, [7], 2),
    ("lstm", lstm(5), [6, 3], 3),
    ("lstm_one_step", lstm(3), [1, 4], 2),
    ("lstm_sequences", lstm(4, return_sequences=True), [5, 2], 3),
    ("lstm_two_layers", lstm(5, num_layers=2), [7, 1], 3),
    ("lstm_two_layers_sequences", lstm(3, num_layers=2, return_sequences=True, bias=False), [4, 3], 2),
    ("lstm_wide", lstm(17), [3, 2], 3),
    ("lstm_bidirectional", lstm(3, bidirectional=True), [5, 2], 3),
    ("lstm_bidirectional_two_layers", lstm(3, num_layers=2, bidirectional=True, return_sequences=True), [4, 2], 2),
    ("lstm_bidirectional_two_layers_last", lstm(2, num_layers=2, bidirectional=True), [4, 3], 2),
    ("gru", gru(5), [6, 3], 3),
    ("gru_one_step", gru(3), [1, 4], 2),
    ("gru_sequences", gru(4, return_sequences=True), [5, 2], 3),
    ("gru_two_layers_no_bias", gru(3, num_layers=2, return_sequences=True, bias=False), [4, 3], 2),
    ("gru_wide", gru(17), [3, 2], 3),
    ("gru_bidirectional_two_layers", gru(3, num_layers=2, bidirectional=True), [4, 2], 2),
    ("residual", {"type": "residual", "layers": BLOCK, "shortcut": []}, [4, 5, 4], 2),
    ("residual_shortcut", {"type": "residual", "layers": DOWN, "shortcut": SHORTCUT}, [3, 6, 5], 2),
    (
        "residual_linear",
        {"type": "residual", "layers": [{"type": "linear", "out_features": 6}, {"type": "tanh"}], "shortcut": []},
        [6],
        3,
    ),
]

if __name__ == "__main__":
    write("layers.json", [case(*arguments) for arguments in CASES])
