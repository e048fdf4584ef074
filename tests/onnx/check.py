#!/usr/bin/env python3
"""Runs networks that ddl wrote as ONNX in onnxruntime, and compares with what ddl itself gives.

    tests/onnx/check.py FOLDER     NAME.onnx beside NAME.npz, with inputs x0, x1, ... and outputs y0, y1, ...

Needs onnx and onnxruntime. Exit codes: 0 the same to 1e-5 and valid, 1 not, 77 not possible here.
"""

import sys
from pathlib import Path

try:
    import numpy
    import onnx
    import onnxruntime
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

failed, checked = 0, 0
for file in sorted(Path(sys.argv[1]).glob("*.onnx")):
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    arrays = numpy.load(file.with_suffix(".npz"))
    for name in (name for name in arrays.files if name.startswith("x")):
        given, expected = arrays[name], arrays["y" + name[1:]]
        found = session.run(["output"], {"input": given})[0]
        same = found.shape == expected.shape
        error = float(numpy.max(numpy.abs(found - expected) / numpy.maximum(1, numpy.abs(expected)))) if same else numpy.nan
        checked += 1
        if not error <= 1e-5:
            failed += 1
            print(f"{file.stem}, {name} of {given.shape}: {found.shape} where {expected.shape} is due, off by {error:.2e}")
print(f"onnxruntime {onnxruntime.__version__}: {checked} outputs, {failed} not as ddl gives them")
sys.exit(1 if failed or not checked else 0)
