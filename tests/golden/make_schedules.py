"""Makes schedules.json: the learning rate of every step of every schedule.

Run: python tests/golden/make_schedules.py       (made with torch 2.15.0, CPU)

A case is { name, schedule, lr, steps_per_epoch, epochs, lrs, walks }: `schedule` as in the job file, `lr` the optimizer's,
`lrs` the rate of each of the epochs * steps_per_epoch steps. `walks`, of one_cycle only, has for torch's SGD (momentum 0.9) and
Adam under that schedule { optimizer, momenta, weights }: the momentum or beta1 that OneCycleLR set for each step, and the three
weights after the last one. They start as value(10, i), and the gradients of step t = 0, 1, ... are value(100 + t, i). step and one_cycle are torch's StepLR (per epoch) and
OneCycleLR (per step, cosine annealing, `lr` being max_lr). cosine falls to min_lr per step, not per epoch:
lr(t) = min_lr + (lr - min_lr) * (1 + cos(pi * t / T)) / 2, t and T counting the steps after the warm-up (Loshchilov,
Hutter, SGDR, 2017, without restarts). Warm-up is linear from 0: lr * (s + 1) / warmup_steps for s < warmup_steps.
"""

import math
import warnings

import torch
from formula import numbers, value, write

warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")


def torch_schedule(make, lr, count):
    """The rate before each of `count` scheduler steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for step in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        if step + 1 < count:
            scheduler.step()
    return rates


def walk(kind, schedule, lr, steps):
    """What one_cycle makes of an optimizer with momentum."""
    weights = torch.from_numpy(value(10, (3,))).double()
    make = {"sgd": lambda of: torch.optim.SGD(of, lr=lr, momentum=0.9), "adam": lambda of: torch.optim.Adam(of, lr=lr)}[kind]
    optimizer = make([weights])
    keys = {key: v for key, v in schedule.items() if key != "type"}
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps, **keys)
    momenta = []
    for step in range(steps):
        group = optimizer.param_groups[0]
        momenta.append(group["momentum"] if kind == "sgd" else group["betas"][0])
        weights.grad = torch.from_numpy(value(100 + step, (3,))).double()
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()
    return {"optimizer": kind, "momenta": numbers(momenta, 12), "weights": numbers(weights)}


def rates(schedule, lr, steps_per_epoch, epochs):
    """The rate of every step."""
    keys = {key: v for key, v in schedule.items() if key not in ("type", "warmup_epochs")}
    warmup = schedule.get("warmup_epochs", 0) * steps_per_epoch
    steps = epochs * steps_per_epoch
    ramp = [lr * (s + 1) / warmup for s in range(warmup)]
    match schedule["type"]:
        case "constant":
            rest = [lr] * (steps - warmup)
        case "cosine":
            low, span = keys.get("min_lr", 0.0), steps - warmup
            rest = [low + (lr - low) * (1 + math.cos(math.pi * t / span)) / 2 for t in range(span)]
        case "step":
            assert warmup == 0
            per_epoch = torch_schedule(lambda o: torch.optim.lr_scheduler.StepLR(o, **keys), lr, epochs)
            rest = [rate for rate in per_epoch for _ in range(steps_per_epoch)]
        case "one_cycle":
            assert warmup == 0
            one_cycle = torch.optim.lr_scheduler.OneCycleLR
            rest = torch_schedule(lambda o: one_cycle(o, max_lr=lr, total_steps=steps, **keys), lr, steps)
    return ramp + rest


CASES = [
    ("constant", {"type": "constant"}, 0.1, 3, 2),
    ("constant_warmup", {"type": "constant", "warmup_epochs": 2}, 0.1, 4, 4),
    ("step", {"type": "step", "step_size": 2, "gamma": 0.1}, 0.1, 3, 5),
    ("step_defaults", {"type": "step", "step_size": 1}, 0.3, 3, 3),
    ("step_half", {"type": "step", "step_size": 1, "gamma": 0.5}, 0.2, 2, 4),
    ("cosine", {"type": "cosine"}, 0.1, 5, 4),
    ("cosine_warmup", {"type": "cosine", "warmup_epochs": 1, "min_lr": 0.001}, 0.1, 5, 4),
    ("one_cycle", {"type": "one_cycle"}, 0.1, 10, 3),
    (
        "one_cycle_options",
        {"type": "one_cycle", "pct_start": 0.2, "div_factor": 10.0, "final_div_factor": 100.0},
        0.05,
        5,
        5,
    ),
    ("one_cycle_momenta", {"type": "one_cycle", "pct_start": 0.4, "base_momentum": 0.6, "max_momentum": 0.8}, 0.1, 5, 2),
    ("one_cycle_still", {"type": "one_cycle", "cycle_momentum": False}, 0.1, 5, 2),
]


def case(name, schedule, lr, steps_per_epoch, epochs):
    """One case of the file."""
    lrs = numbers(rates(schedule, lr, steps_per_epoch, epochs), 12)
    kinds = ("sgd", "adam") if schedule["type"] == "one_cycle" else ()
    return {
        "name": name,
        "schedule": schedule,
        "lr": lr,
        "steps_per_epoch": steps_per_epoch,
        "epochs": epochs,
        "lrs": lrs,
        "walks": [walk(kind, schedule, lr, len(lrs)) for kind in kinds],
    }


if __name__ == "__main__":
    write("schedules.json", [case(*arguments) for arguments in CASES])
