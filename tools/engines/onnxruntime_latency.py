#!/usr/bin/env python3
"""Prints the median latency of a model in ONNX Runtime, in milliseconds: an engine for `infopt tune --engine`.

    python onnxruntime_latency.py MODEL.onnx [--data SAMPLES.npz] [--threads 1] [--seconds 1]

One sample at a time. Inputs come from the npz, by name (rows of the first axis, or whole inputs where an array has one axis more), or are made of zeros
where a dimension that isn't fixed is 1.
"""
import argparse
import statistics
import time

import numpy as np
import onnxruntime as ort

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(int64)": np.int64, "tensor(int32)": np.int32,
         "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_}


def first_sample(array, shape):
    if array.ndim == len(shape) + 1:
        return array[0]
    return array[: shape[0] if shape and isinstance(shape[0], int) else 1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    session = ort.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])
    data = dict(np.load(options.data, allow_pickle=False)) if options.data else {}
    feeds = {}
    for i in session.get_inputs():
        fixed = [d if isinstance(d, int) else 1 for d in i.shape]
        feeds[i.name] = first_sample(data[i.name], i.shape).astype(TYPES[i.type]) if i.name in data else np.zeros(fixed, TYPES[i.type])
    for _ in range(3):
        session.run(None, feeds)
    times, end = [], time.perf_counter() + options.seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - start)
    print(f"{1000 * statistics.median(times):.6f}")


if __name__ == "__main__":
    main()
