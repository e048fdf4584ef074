"""Makes weighted_losses.json: cross entropy with class weights and its gradient, by the formula in torch's documentation of
CrossEntropyLoss (reduction "mean", weight, label_smoothing), in Python's float64 and without torch.

Run: python tests/golden/make_weighted_losses.py

A case is as in losses.json (make_losses.py). The gradient is no formula of its own: it is the derivative of the value by a
complex step, exact to rounding.
"""

import cmath

from formula import numbers, value, write

STEP = 1e-40


def loss(y, targets, weight, smoothing):
    """The documented mean: sum of l_n over the sum of the targets' weights."""
    n, total, weights = len(y[0]), 0, 0
    for row, target in zip(y, targets):
        highest = max(v.real for v in row)
        log_sum = highest + cmath.log(sum(cmath.exp(v - highest) for v in row))
        log_softmax = [v - log_sum for v in row]
        total += (1 - smoothing) * -weight[target] * log_softmax[target]
        total += smoothing / n * sum(-w * v for w, v in zip(weight, log_softmax))
        weights += weight[target]
    return total / weights


def case(name, weight, smoothing, m, y_scale):
    """One case of the file."""
    n = len(weight)
    y = [[complex(y_scale * float(v)) for v in row] for row in value(1, (m, n))]
    targets = [7 * sample % n for sample in range(m)]
    dy = []
    for row in range(m):
        for column in range(n):
            y[row][column] += STEP * 1j
            dy.append(loss(y, targets, weight, smoothing).imag / STEP)
            y[row][column] -= STEP * 1j
    keys = {"label_smoothing": smoothing} if smoothing else {}
    return {
        "name": name,
        "loss": {"type": "cross_entropy", **keys, "weight": weight},
        "m": m,
        "n": n,
        "y_scale": y_scale,
        "targets": [float(target) for target in targets],
        "value": numbers(loss(y, targets, weight, smoothing).real, 11)[0],
        "dy": numbers(dy, 11),
    }


CASES = [
    ("cross_entropy_weighted", [0.5, 2.0, 1.0, 0.25, 3.0, 1.5], 0, 8, 4),
    ("cross_entropy_weighted_zero", [0.0, 2.0, 0.75], 0, 7, 4),
    ("cross_entropy_weighted_smoothed", [0.5, 2.0, 1.0, 0.0, 3.0, 1.5], 0.1, 8, 4),
]

if __name__ == "__main__":
    write("weighted_losses.json", [case(*arguments) for arguments in CASES])
