"""Makes losses.json: every loss and its gradient, by PyTorch in float64.

Run: python tests/golden/make_losses.py          (made with torch 2.15.0, CPU)

A case is { name, loss, m, n, y_scale, targets, value, dy }: `loss` as in the job file, y = y_scale * value(1, i) of
shape (m, n), row-major. Targets are the classes (7 * sample) % n for cross_entropy, else value(2, i) of shape (m, n).
`value` is the mean, over the samples for cross_entropy and over all elements otherwise; `dy` its gradient.
"""

import torch
import torch.nn.functional as F
from formula import numbers, value, write

torch.set_num_threads(1)


def case(name, loss, m, n, y_scale=1):
    """One case of the file."""
    y = (y_scale * torch.from_numpy(value(1, (m, n))).double()).requires_grad_()
    keys = {key: v for key, v in loss.items() if key != "type"}
    if loss["type"] == "cross_entropy":
        targets = (torch.arange(m) * 7) % n
        total = F.cross_entropy(y, targets, **keys)
    else:
        targets = torch.from_numpy(value(2, (m, n))).double()
        functions = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}
        total = functions[loss["type"]](y, targets, **keys)
    total.backward()
    return {
        "name": name,
        "loss": loss,
        "m": m,
        "n": n,
        "y_scale": y_scale,
        "targets": targets.flatten().tolist() if loss["type"] == "cross_entropy" else numbers(targets, 17),
        "value": numbers(total.detach(), 11)[0],
        "dy": numbers(y.grad, 11),
    }


CASES = [
    ("cross_entropy", {"type": "cross_entropy"}, 8, 10, 4),
    ("cross_entropy_large_logits", {"type": "cross_entropy"}, 5, 3, 256),
    ("cross_entropy_smoothed", {"type": "cross_entropy", "label_smoothing": 0.1}, 6, 10, 4),
    ("mse", {"type": "mse"}, 7, 1),
    ("mse_three_outputs", {"type": "mse"}, 5, 3),
    ("mae", {"type": "mae"}, 7, 1),
    ("mae_three_outputs", {"type": "mae"}, 5, 3),
    ("huber", {"type": "huber"}, 9, 2),
    ("huber_half", {"type": "huber", "delta": 0.5}, 9, 2),
    ("huber_wide", {"type": "huber", "delta": 1.5}, 9, 1, 2),
]

if __name__ == "__main__":
    write("losses.json", [case(*arguments) for arguments in CASES])
