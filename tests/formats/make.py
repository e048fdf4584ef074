#!/usr/bin/env python3
"""Makes the small files in this folder with the libraries that our users write theirs with.

    pip install tensorflow-cpu pyarrow pillow numpy h5py
    python tests/formats/make.py

`digits/`: the first three training digits and the first test digit of each class of `data/mnist`, in every format:
IDX, NPZ and a folder of NPY (numpy), HDF5 (h5py), TFRecord (TensorFlow; the training part plain, the test part gzip, and both as PNG in zlib),
Parquet (pyarrow; lists, and PNG in structs as Hugging Face stores pictures), and a folder of PNG (Pillow).
`table/`: one table of many types in Parquet files of different codecs. `cifar/`: pickles of numpy arrays by Python 3.
"""
import gzip
import io
import pathlib
import pickle
import shutil
import struct
from decimal import Decimal

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from PIL import Image

here = pathlib.Path(__file__).parent
mnist = here.parent.parent / "data/mnist"


def idx(name):
    data = gzip.decompress((mnist / name).read_bytes())
    dims = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dims)


def subset(part, count):
    images, labels = idx(f"{part}-images-idx3-ubyte.gz"), idx(f"{part}-labels-idx1-ubyte.gz")
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:count] for digit in range(10)])
    return images[chosen], labels[chosen]


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


def png(image):
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", optimize=True)
    return out.getvalue()


def feature(value):
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    if isinstance(value, (int, np.integer)):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value)]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=value))


def write_records(path, rows, packed=""):
    with tf.io.TFRecordWriter(str(path), options=packed) as writer:
        for row in rows:
            features = tf.train.Features(feature={name: feature(value) for name, value in row.items()})
            writer.write(tf.train.Example(features=features).SerializeToString(deterministic=True))


def digits():
    out = here / "digits"
    shutil.rmtree(out, ignore_errors=True)
    (out / "idx").mkdir(parents=True)
    parts = {"train": subset("train", 3), "test": subset("t10k", 1)}
    arrays = {}
    for part, (images, labels) in parts.items():
        name = {"train": "train", "test": "t10k"}[part]
        write_idx(out / f"idx/{name}-images-idx3-ubyte.gz", images)
        write_idx(out / f"idx/{name}-labels-idx1-ubyte.gz", labels)
        arrays[f"x_{part}"], arrays[f"y_{part}"] = images[:, None], labels.astype(np.int64)
        rows = [{"image_raw": i.tobytes(), "label": l} for i, l in zip(images, labels)]
        write_records(out / f"{part}.tfrecord", rows, "" if part == "train" else "GZIP")
        rows = [{"image/encoded": png(i), "label": l} for i, l in zip(images, labels)]
        write_records(out / f"{part}-png.tfrecord", rows, "ZLIB")
        flat = pa.FixedSizeListArray.from_arrays(pa.array(images.ravel(), pa.uint8()), 784)
        table = pa.table({"pixels": flat, "label": pa.array(labels, pa.int8())})
        pq.write_table(table, out / f"{part}.parquet", row_group_size=16, compression="zstd")
        pictures = [{"bytes": png(i), "path": None} for i in images]
        table = pa.table({"image": pa.array(pictures), "label": pa.array(labels, pa.int64())})
        pq.write_table(table, out / f"{part}-png.parquet", compression="snappy")
        for n, (image, label) in enumerate(zip(images, labels)):
            folder = out / "images" / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{n:03}.png").write_bytes(png(image))
    np.savez_compressed(out / "digits.npz", **arrays)
    (out / "npy").mkdir()
    for name, array in arrays.items():
        np.save(out / f"npy/{name}.npy", array)
    with h5py.File(out / "digits.h5", "w", track_order=False) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", shuffle=True, track_times=False)


def table():
    out = here / "table"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    n = 40
    i = np.arange(n)
    columns = {
        "i8": pa.array(i - 20, pa.int8()),
        "u16": pa.array(i * 1000, pa.uint16()),
        "u32": pa.array(4_294_967_295 - i, pa.uint32()),
        "i64": pa.array([None if k % 10 == 7 else int(k) - 3 for k in i], pa.int64()),
        "f16": pa.array((i / 4).astype(np.float16)),
        "f32": pa.array(i / 8, pa.float32()),
        "f64": pa.array([None if k == 5 else float(k) * 1.5 for k in i], pa.float64()),
        "flag": pa.array(i % 3 == 0),
        "day": pa.array(i.astype(np.int32), pa.date32()),
        "at": pa.array(i * 1_500_000, pa.timestamp("us")),
        "at_ns": pa.array(i * 2_000_000_000, pa.timestamp("ns")),
        "price": pa.array([Decimal(int(k)) / 100 - 1 for k in i], pa.decimal128(9, 2)),
        "color": pa.array([["red", "green", None, "blue"][k % 4] for k in i]),
        "size": pa.array([["S", "M", "L"][k % 3] for k in i]).dictionary_encode(),
        "list": pa.array([[float(k), 2.0 * k, -1.0 * k] for k in i], pa.list_(pa.float32())),
        "y": pa.array(2.0 * i - 0.5 * (i - 20), pa.float64()),
    }
    whole = pa.table(columns)
    for part, codec in enumerate(["snappy", "gzip", "zstd", "lz4", "none"]):
        piece = whole.slice(8 * part, 8)
        pq.write_table(piece, out / f"part-{part}.parquet", compression=codec, row_group_size=5)


def cifar():
    out = here / "cifar"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    data = (np.arange(2 * 3072) // 16 % 251).astype(np.uint8).reshape(2, 3072)
    content = {b"data": data, b"fine_labels": [7, 99], b"coarse_labels": [1, 19], b"labels": [3, 9]}
    for protocol in (2, 3, 4):
        (out / f"protocol-{protocol}.pickle").write_bytes(pickle.dumps(content, protocol))


def pictures():
    out = here / "pictures"
    shutil.rmtree(out, ignore_errors=True)
    y, x = np.mgrid[0:6, 0:8]
    color = np.stack([x * 30, y * 40, (x + y) * 15], -1).astype(np.uint8)
    for name, kind in (("warm", "RGB"), ("cold", "RGB")):
        folder = out / name
        folder.mkdir(parents=True)
        for n in range(5):
            image = Image.fromarray(np.roll(color if name == "warm" else 255 - color, n, 1), kind)
            image.save(folder / f"{n}.{'jpg' if n == 4 else 'png'}")
    Image.fromarray(color).convert("P").save(out / "warm" / "palette.png")
    Image.fromarray(color).convert("L").save(out / "cold" / "grey.jpeg")
    Image.fromarray(color).convert("RGBA").resize((16, 12)).save(out / "cold" / "large.png")


digits()
table()
cifar()
pictures()
