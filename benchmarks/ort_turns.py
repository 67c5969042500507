#!/usr/bin/env python3
"""Several files of one model in ONNX Runtime, a run of each in turns, on one thread; or where the time of each goes, by operator.

    python benchmarks/ort_turns.py --data calib.npz [--runs 300] [--profile] model.onnx out.onnx …

Prints the median and the 20th percentile, and their ratios to the first file's: on a busy machine the percentile says more.
"""

import argparse
import collections
import json
import pathlib
import tempfile
import time

import numpy as np
import onnxruntime as ort


def session(path, profile_prefix=None):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds_of(s, data):
    return {i.name: data[i.name][:1] for i in s.get_inputs()}


def take_turns(paths, data, runs):
    sessions = [session(p) for p in paths]
    times = [[] for _ in paths]
    for run in range(runs + 5):
        for s, taken in zip(sessions, times):
            start = time.perf_counter()
            s.run(None, feeds_of(s, data))
            if run >= 5:
                taken.append(1000 * (time.perf_counter() - start))
    first = [np.median(times[0]), np.percentile(times[0], 20)]
    print("| file | median, ms | 20th percentile, ms | ratio of medians | of percentiles |\n|---|---|---|---|---|")
    for path, taken in zip(paths, times):
        median, low = np.median(taken), np.percentile(taken, 20)
        print(f"| {path} | {median:.3f} | {low:.3f} | {median / first[0]:.2f} | {low / first[1]:.2f} |")


def profile(path, data, runs):
    with tempfile.TemporaryDirectory() as folder:
        s = session(path, str(pathlib.Path(folder) / "profile"))
        for _ in range(runs):
            s.run(None, feeds_of(s, data))
        events = json.loads(pathlib.Path(s.end_profiling()).read_text())
    spent = collections.Counter()
    for e in events:
        if e.get("cat") == "Node" and e["name"].endswith("_kernel_time"):
            spent[e["args"]["op_name"]] += e["dur"]
    print(f"{path}: " + ", ".join(f"{op} {100 * t / sum(spent.values()):.0f} %" for op, t in spent.most_common(10)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    data = dict(np.load(options.data, allow_pickle=False))
    if options.profile:
        for path in options.models:
            profile(path, data, options.runs)
    else:
        take_turns(options.models, data, options.runs)


if __name__ == "__main__":
    main()
