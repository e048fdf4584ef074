#!/usr/bin/env python3
"""Makes the samples in this folder from the full sets.

    make-samples.py MNIST_FOLDER INDEX_CSV_GZ

MNIST_FOLDER holds the four official IDX files, plain or .gz; of each class the first 600 training and the first 100 test
digits are taken, in the order of the file. INDEX_CSV_GZ is copied as it is.
"""
import gzip
import os
import shutil
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def read(folder, name):
    path = os.path.join(folder, name)
    if os.path.exists(path):
        with open(path, "rb") as file:
            return file.read()
    with gzip.open(path + ".gz") as file:
        return file.read()


def write(name, content):
    # No name and no time in the header: the same input gives the same file.
    with open(os.path.join(HERE, "mnist", name + ".gz"), "wb") as file:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=9, mtime=0) as packed:
            packed.write(content)


def sample(folder, part, per_class):
    images = read(folder, f"{part}-images-idx3-ubyte")
    labels = read(folder, f"{part}-labels-idx1-ubyte")
    _, _, height, width = struct.unpack(">4I", images[:16])
    size, taken, chosen = height * width, [0] * 10, []
    for index, label in enumerate(labels[8:]):
        if taken[label] < per_class:
            taken[label] += 1
            chosen.append(index)
    pixels = b"".join(images[16 + index * size:16 + (index + 1) * size] for index in chosen)
    write(f"{part}-images-idx3-ubyte", struct.pack(">4I", 0x803, len(chosen), height, width) + pixels)
    write(f"{part}-labels-idx1-ubyte", struct.pack(">2I", 0x801, len(chosen)) + bytes(labels[8 + i] for i in chosen))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.makedirs(os.path.join(HERE, "mnist"), exist_ok=True)
    os.makedirs(os.path.join(HERE, "sp500"), exist_ok=True)
    sample(sys.argv[1], "train", 600)
    sample(sys.argv[1], "t10k", 100)
    shutil.copyfile(sys.argv[2], os.path.join(HERE, "sp500", "index_daily.csv.gz"))


if __name__ == "__main__":
    main()
