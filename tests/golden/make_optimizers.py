"""Makes optimizers.json: six steps of every optimizer in float64, by torch.optim; LARS and LAMB from the papers.

Run: python tests/golden/make_optimizers.py      (made with torch 2.15.0, CPU)

A case is { name, optimizer, steps }: `optimizer` as in the job file with every key given that matters, `steps` the
parameters { weight: 12 numbers, bias: 3 } after each step. There are two tensors, weight (4, 3) and bias (3):

  weight = value(10, i), bias = value(11, i) at the start (a case with "zero_weight": true starts with weight 0)
  gradients of step t = 0, 1, ...: weight value(100 + t, i) for i = 0..12, bias value(100 + t, i) for i = 12..15

LARS: You, Gitman, Ginsburg, Large Batch Training of Convolutional Networks, 2017. LAMB: You et al., Large Batch
Optimization for Deep Learning, 2020. In both, tensors of one dimension take neither trust ratio nor weight decay.
"""

import torch
from formula import numbers, value, write

torch.set_num_threads(1)
STEPS = 6


class Lars(torch.optim.Optimizer):
    """v = momentum * v + lr * ratio * (g + weight_decay * w); w -= v."""

    def __init__(self, params, lr, momentum=0.9, weight_decay=0.0, trust_coefficient=0.001, eps=1e-8):
        super().__init__(params, dict(lr=lr, momentum=momentum, decay=weight_decay, trust=trust_coefficient, eps=eps))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                g, ratio = w.grad, 1.0
                if w.dim() > 1:
                    w_norm, g_norm = w.norm(), g.norm()
                    if w_norm > 0 and g_norm > 0:
                        ratio = group["trust"] * w_norm / (g_norm + group["decay"] * w_norm + group["eps"])
                    g = g + group["decay"] * w
                v = self.state[w].setdefault("v", torch.zeros_like(w))
                v.mul_(group["momentum"]).add_(group["lr"] * ratio * g)
                w.sub_(v)


class Lamb(torch.optim.Optimizer):
    """r = m' / (sqrt(v') + eps) + weight_decay * w; w -= lr * |w| / |r| * r, m' and v' being bias-corrected."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for w in group["params"]:
                state = self.state[w]
                if not state:
                    state.update(t=0, m=torch.zeros_like(w), v=torch.zeros_like(w))
                state["t"] += 1
                state["m"].mul_(beta1).add_((1 - beta1) * w.grad)
                state["v"].mul_(beta2).add_((1 - beta2) * w.grad**2)
                m = state["m"] / (1 - beta1 ** state["t"])
                v = state["v"] / (1 - beta2 ** state["t"])
                r, ratio = m / (v.sqrt() + group["eps"]), 1.0
                if w.dim() > 1:
                    r = r + group["decay"] * w
                    w_norm, r_norm = w.norm(), r.norm()
                    if w_norm > 0 and r_norm > 0:
                        ratio = w_norm / r_norm
                w.sub_(group["lr"] * ratio * r)


OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "lars": Lars,
    "lamb": Lamb,
}


def case(name, optimizer, zero_weight=False):
    """One case of the file."""
    shapes = {"weight": (4, 3), "bias": (3,)}
    params = {key: torch.from_numpy(value(10 + k, shapes[key])).double() for k, key in enumerate(shapes)}
    if zero_weight:
        params["weight"].zero_()
    keys = {key: tuple(v) if isinstance(v, list) else v for key, v in optimizer.items() if key != "type"}
    optim = OPTIMIZERS[optimizer["type"]](list(params.values()), **keys)
    steps = []
    for t in range(STEPS):
        params["weight"].grad = torch.from_numpy(value(100 + t, (4, 3))).double()
        params["bias"].grad = torch.from_numpy(value(100 + t, (3,), first=12)).double()
        optim.step()
        steps.append({key: numbers(p) for key, p in params.items()})
    return {"name": name, "optimizer": optimizer, "zero_weight": zero_weight, "steps": steps}


def table(kind, lr, **keys):
    return {"type": kind, "lr": lr, **keys}


CASES = [
    ("sgd", table("sgd", 0.1)),
    ("sgd_momentum", table("sgd", 0.1, momentum=0.9)),
    ("sgd_nesterov", table("sgd", 0.1, momentum=0.9, nesterov=True)),
    ("sgd_weight_decay", table("sgd", 0.1, weight_decay=0.05)),
    ("sgd_all", table("sgd", 0.05, momentum=0.8, nesterov=True, weight_decay=0.01)),
    ("adam", table("adam", 0.01)),
    ("adam_defaults", {"type": "adam"}),
    ("adam_options", table("adam", 0.02, betas=[0.8, 0.95], eps=1e-3)),
    ("adam_weight_decay", table("adam", 0.01, weight_decay=0.1)),
    ("adamw", table("adamw", 0.01)),
    ("adamw_weight_decay", table("adamw", 0.02, weight_decay=0.2)),
    ("adamw_defaults", {"type": "adamw"}),
    ("lars", table("lars", 2.0, momentum=0.9, weight_decay=0.0, trust_coefficient=0.001, eps=1e-8)),
    ("lars_weight_decay", table("lars", 2.0, momentum=0.9, weight_decay=0.1, trust_coefficient=0.02, eps=1e-8)),
    ("lars_zero_weight", table("lars", 0.1, momentum=0.9, weight_decay=0.1, trust_coefficient=0.001, eps=1e-8), True),
    ("lamb", table("lamb", 0.01, betas=[0.9, 0.999], eps=1e-6, weight_decay=0.0)),
    ("lamb_weight_decay", table("lamb", 0.02, betas=[0.9, 0.99], eps=1e-6, weight_decay=0.1)),
    ("lamb_zero_weight", table("lamb", 0.01, betas=[0.9, 0.999], eps=1e-6, weight_decay=0.1), True),
]

if __name__ == "__main__":
    write("optimizers.json", [case(*arguments) for arguments in CASES])
