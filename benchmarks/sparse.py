#!/usr/bin/env python3
"""What zeros among the weights save in time: infopt's runtime and ONNX Runtime on a folder of models.

    python benchmarks/sparse.py --zoo DIR --models a,b [--patterns unstructured,2:4,block] [--sparsities 0.5,0.8,0.9] [--rounds N]

DIR holds one folder a model: model.onnx and eval.npz, whose first row is the input. Each file comes from `infopt prune` by magnitude and is compared
with the same recipe's file without any pruning. One thread, all in turns; a time is the processor's, not the clock's, so that other work on the
machine counts little, and the least of the turns: of infopt, what many runs take more than few.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime as ort

from runtime_vs_ort import REPOSITORY, Failed, last_line


def infopt(options, *words):
    done = subprocess.run([str(w) for w in (options.infopt, *words)], capture_output=True, text=True)
    if done.returncode:
        raise Failed(last_line(done.stderr) or f"infopt: exit {done.returncode}")
    return done.stdout


def prune(options, model, out, changes):
    infopt(options, "prune", model, "--recipe", "magnitude-50", "-o", out, *(word for change in changes for word in ("--set", "prune_weights." + change)))


def changes_for(pattern, sparsity):
    if ":" in pattern:
        n, m = pattern.split(":")
        return ["pattern=n:m", f"n={n}", f"m={m}"]
    return [f"pattern={pattern}", f"sparsity={sparsity}"]


def cases(options):
    for pattern in options.patterns:
        if ":" in pattern:
            n, m = map(int, pattern.split(":"))
            yield pattern, 1 - n / m
        else:
            for sparsity in options.sparsities:
                yield pattern, sparsity


def cpu_of(options, file, data, runs):
    """Seconds of processor that infopt takes to load the file and run it so often."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    infopt(options, "bench", file, "--input", data, "--warmup", 3, "--runs", runs, "--json")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class OnnxRuntime:
    def __init__(self, file, data):
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        self.session = ort.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        with np.load(data) as arrays:
            self.feeds = {i.name: arrays[i.name][:1] for i in self.session.get_inputs()}

    def seconds(self, runs):
        start = time.thread_time()
        for _ in range(runs):
            self.session.run(None, self.feeds)
        return (time.thread_time() - start) / runs


def measure(options, scratch, model, data):
    """Processor seconds of a run of each file in each runtime."""
    files = {("float", 0): scratch / "dense.onnx"}
    prune(options, model, files["float", 0], ["sparsity=0"])
    for pattern, sparsity in cases(options):
        files[pattern, sparsity] = scratch / f"{pattern.replace(':', '_')}-{sparsity}.onnx"
        prune(options, model, files[pattern, sparsity], changes_for(pattern, sparsity))
    sessions = {key: OnnxRuntime(file, data) for key, file in files.items()}
    estimate = sessions["float", 0].seconds(3)
    few, many = 2, 2 + max(10, round(options.seconds / estimate))
    taken = {key: ([], [], []) for key in files}
    for _ in range(options.rounds):
        for key, file in files.items():
            for runs, times in zip((few, many), taken[key]):
                times.append(cpu_of(options, file, data, runs))
            for _ in range(5):
                taken[key][2].append(sessions[key].seconds(max(1, (many - few) // 10)))
    return {key: ((min(after) - min(before)) / (many - few), min(theirs)) for key, (before, after, theirs) in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--patterns", default="unstructured,2:4,block", type=lambda text: text.split(","))
    parser.add_argument("--sparsities", default="0.5,0.8,0.9", type=lambda text: [float(v) for v in text.split(",")])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--infopt", default=REPOSITORY / "build/release/tools/infopt")
    options = parser.parse_args()
    print("| model | pattern | zeros | infopt, dense = 1 | faster by | ONNX Runtime, dense = 1 | infopt against ONNX Runtime, same file |\n|---|---|---|---|---|---|---|", flush=True)
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            scratch = pathlib.Path(folder)
            data = options.zoo / name / "eval.npz"
            try:
                best = measure(options, scratch, options.zoo / name / "model.onnx", data)
            except Failed as error:
                print(f"| {name} | {error} | | | | | |", flush=True)
                continue
        ours, theirs = best["float", 0]
        for (pattern, sparsity), (mine, other) in best.items():
            print(f"| {name} | {pattern} | {100 * sparsity:.0f} % | {mine / ours:.2f} | {ours / mine:.2f} | {other / theirs:.2f} | {other / mine:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
