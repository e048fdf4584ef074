"""TensorFlow (Keras 3) on a job of ddl: whole training steps in one compiled loop.

    python tf_step.py ../../jobs/cifar10-simplecnn.toml --threads 1 --xla
Prints one JSON object.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf

from job import Job


def layers(spec):
    """The Keras layers for one of the job's."""
    spec = dict(spec)
    match spec.pop("type"):
        case "conv2d":
            padding = "same" if spec.get("padding") else "valid"
            return [keras.layers.Conv2D(spec["out_channels"], spec["kernel_size"], padding=padding)]
        case "batch_norm2d":
            return [keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)]
        case "relu":
            return [keras.layers.ReLU()]
        case "dropout":
            return [keras.layers.Dropout(spec["p"])]
        case "max_pool2d":
            return [keras.layers.MaxPooling2D(spec["kernel_size"])]
        case "flatten":
            return [keras.layers.Flatten()]
        case "linear":
            return [keras.layers.Dense(spec["out_features"])]
        case "lstm":
            last = spec.get("num_layers", 1) - 1
            return [keras.layers.LSTM(spec["hidden_size"], return_sequences=i < last) for i in range(last + 1)]
        case other:
            raise SystemExit(f"no {other} here yet: add it to layers() in tf_step.py")


def build(job):
    shape = (*job.shape[1:], job.shape[0]) if job.images else job.shape
    return keras.Sequential([keras.Input(shape), *(made for spec in job.layers for made in layers(spec))])


def second_biases(job):
    """Keras's LSTM has one bias where torch's and ddl's have two that are summed."""
    return sum(4 * s["hidden_size"] * s.get("num_layers", 1) for s in job.layers if s["type"] == "lstm")


def training_loop(job, model, x, y, xla):
    """A function that takes indices (steps, batch) and makes these steps."""
    settings = dict(job.optimizer)
    rate = settings.pop("lr")
    kind = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[settings.pop("type")]
    optimizer = kind(rate, **settings)
    optimizer.build(model.trainable_variables)
    loss = {
        "cross_entropy": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "mse": keras.losses.MeanSquaredError(),
    }[job.loss]

    @tf.function(jit_compile=xla)
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            value = loss(targets, tf.cast(model(inputs, training=True), tf.float32))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    @tf.function(input_signature=[tf.TensorSpec([None, job.batch], tf.int64)])
    def loop(order):
        value = 0.0
        for ids in order:
            value = step(tf.gather(x, ids), tf.gather(y, ids))
        return value

    return loop


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("job")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--steps", type=int, default=50)
    p.add_argument("--warmup", type=int, default=10, help="steps before the clock starts")
    p.add_argument("--samples", type=int, default=50_000, help="how many to make where the real ones are not there")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--xla", action="store_true", help="compile the step by XLA")
    p.add_argument("--bf16", action="store_true", help="Keras's mixed_bfloat16")
    a = p.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(a.threads)
    tf.config.threading.set_inter_op_parallelism_threads(a.threads)
    keras.utils.set_random_seed(a.seed)
    if a.bf16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")

    job = Job(a.job)
    x, y = job.load("train", a.samples)
    x = tf.constant(np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if job.images else x)
    y = tf.constant(y)
    model = build(job)
    loop = training_loop(job, model, x, y, a.xla)

    def order(steps, seed):
        return tf.constant(job.order(len(x), job.batch, steps, seed))

    float(loop(order(a.warmup, a.seed)))
    measured = order(a.steps, a.seed + 1)
    began = time.perf_counter()
    float(loop(measured))
    seconds = time.perf_counter() - began
    fixed = sum(int(np.prod(w.shape)) for w in model.non_trainable_weights)  # running means and the like
    print(json.dumps({
        "job": job.name, "version": tf.__version__, "ranks": 1, "threads": a.threads, "batch": job.batch,
        "samples": len(x), "parameters": model.count_params() - fixed + second_biases(job),
        "steps": a.steps, "samples_per_second": a.steps * job.batch / seconds,
    }), flush=True)


if __name__ == "__main__":
    main()
