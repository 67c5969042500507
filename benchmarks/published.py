#!/usr/bin/env python3
"""Models as they are published, with nothing known of their task: what infopt's runtime, `optimize` and recipes make of each, judged in ONNX Runtime.

    python benchmarks/published.py --models DIR [--names a,b] [--recipe int8] [--samples 8] [--limit 900] [--infopt BINARY]

DIR holds one folder a model: model.onnx, calib.npz and eval.npz (rows along the first axis; inputs of one row are given as they are). METHOD.md says
where ours came from. The columns: the runtime's outputs beside ONNX Runtime's on the float model, the worst output's decibels; the file's beside the float
model's in ONNX Runtime, the same, over `--samples` rows; the share of equal largest elements along the last axis of the first output; sizes and times on
one thread as ratios, times in turns, of 20th percentiles; the runtime's outputs beside ONNX Runtime's on that file.

Several recipes, with commas between, make a table of one row a model and one column a recipe: decibels and agreement as above, the file's size by the
model's, the processor's seconds to make it; "runtime: 12" where infopt's and ONNX Runtime's outputs are no closer to each other than the file is to the float model;
what failed. --keep FOLDER keeps files and what infopt said.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort

from ort_turns import session


def rows_of(s, data, count):
    """One feed for each row, of the rank that the model takes."""
    def of_rank(value, wanted):
        return np.asarray(value[0]) if value.ndim == wanted + 1 else value

    inputs = s.get_inputs()
    count = min(count, len(data[inputs[0].name]))
    return [{i.name: of_rank(data[i.name][row : row + 1], len(i.shape)) for i in inputs} for row in range(count)]


def decibels(reference, actual):
    """Of the worst floating output, over all samples; nan where shapes differ."""
    worst = np.inf
    for output in range(len(reference[0])):
        signal = noise = 0.0
        for a, b in zip(reference, actual):
            if a[output].dtype.kind != "f":
                continue
            if a[output].shape != b[output].shape:
                return float("nan")
            signal += np.sum(np.square(a[output], dtype=np.float64))
            noise += np.sum(np.square(a[output].astype(np.float64) - b[output]))
        if not noise <= 0:  # nan, too
            worst = np.minimum(worst, 10 * np.log10(signal / noise) if signal > 0 else -np.inf)
    return worst


def agreement(reference, actual):
    pairs = [(a[0], b[0]) for a, b in zip(reference, actual) if a[0].ndim and a[0].shape == b[0].shape and a[0].shape[-1] > 1]
    return np.mean(np.concatenate([(a.argmax(-1) == b.argmax(-1)).ravel() for a, b in pairs])) if pairs else float("nan")


def time_ratio(first, second, feeds, seconds=1.0):
    taken, end = ([], []), time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken[0]) < 6:
        for s, times in zip((first, second), taken):
            start = time.perf_counter()
            s.run(None, feeds[len(times) % len(feeds)])
            times.append(time.perf_counter() - start)
    return np.percentile(taken[1], 20) / np.percentile(taken[0], 20)


class Judge:
    def __init__(self, options, folder, scratch):
        self.options, self.folder, self.scratch = options, folder, pathlib.Path(scratch)
        self.model = folder / "model.onnx"
        self.session = session(self.model)
        self.feeds = rows_of(self.session, np.load(folder / "eval.npz"), options.samples)
        self.reference = [self.session.run(None, f) for f in self.feeds]
        self.said = ""

    def infopt(self, *arguments):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            done = subprocess.run([self.options.infopt, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=self.options.limit)
        except subprocess.TimeoutExpired:
            return self.options.limit, f"over {self.options.limit:.0f} s"
        self.said = done.stdout + done.stderr
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return time.perf_counter() - start, None if done.returncode == 0 else f"exit code {done.returncode}: {last}"

    def make(self, recipe, file):
        command = "prune" if recipe in ("channels-30", "heads", "magnitude-50", "2to4") else "quantize"
        return self.infopt(command, self.model, "--calib", self.folder / "calib.npz", "--recipe", recipe, "-o", file, "--report", file.with_suffix(""))

    def runtime(self, model, expected):
        np.savez(self.scratch / "in.npz", **{name: value[None] for name, value in self.feeds[0].items()})
        _, failure = self.infopt("run", model, "--input", self.scratch / "in.npz", "-o", self.scratch / "out.npz")
        if failure:
            return failure
        out = np.load(self.scratch / "out.npz")
        return f"{decibels([expected], [[out[o.name].reshape(e.shape) if out[o.name].size == e.size else out[o.name] for o, e in zip(self.session.get_outputs(), expected)]]):.0f}"

    def row(self):
        cells = [self.folder.name, self.runtime(self.model, self.reference[0])]
        file = self.scratch / "out.onnx"
        seconds, failure = self.make(self.options.recipe, file)
        if failure:
            return [*cells, failure]
        made = session(file)
        outputs = [made.run(None, f) for f in self.feeds]
        cells += [f"{decibels(self.reference, outputs):.1f}", f"{100 * agreement(self.reference, outputs):.1f} %"]
        cells += [f"{file.stat().st_size / self.model.stat().st_size:.3f}", f"{time_ratio(self.session, made, self.feeds):.2f}"]
        return [*cells, self.runtime(file, outputs[0]), f"{seconds:.1f}"]

    def cell(self, recipe):
        file = self.scratch / f"{self.folder.name}.{recipe}.onnx"
        file.unlink(missing_ok=True)
        self.said, self.processor = "", 0.0
        _, failure = self.make(recipe, file)
        seconds = self.processor
        if self.options.keep:
            file.with_suffix(".txt").write_text(self.said)
        if not file.exists():
            return failure
        loads = subprocess.run([sys.executable, "-c", "import sys, onnxruntime as o; o.InferenceSession(sys.argv[1])", str(file)], capture_output=True, check=False)
        if loads.returncode < 0:
            return "ONNX Runtime crashes"
        try:
            onnx.checker.check_model(str(file))
            made = session(file)
            outputs = [made.run(None, f) for f in self.feeds]
        except Exception as e:  # whatever they refuse it with
            return f"{type(e).__name__}: {str(e)[:160]}"
        fidelity, own = decibels(self.reference, outputs), self.runtime(file, outputs[0])
        told = f"{fidelity:.1f} dB, {100 * agreement(self.reference, outputs):.0f} %, {file.stat().st_size / self.model.stat().st_size:.3f}, {seconds:.1f} s"
        if "exit" in own or float(own) < min(fidelity, 90):
            told += f", runtime: {own}"
        return told + (", gate not met" if failure and "exit code 8" in failure else f", {failure}" if failure else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, required=True)
    parser.add_argument("--names", default="")
    parser.add_argument("--recipe", default="int8")
    parser.add_argument("--limit", type=float, default=900, help="seconds a command may take")
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--infopt", default=str(pathlib.Path(__file__).resolve().parents[1] / "build/release/tools/infopt"))
    options = parser.parse_args()
    ort.set_default_logger_severity(4)
    names = options.names.split(",") if options.names else sorted(p.parent.name for p in options.models.glob("*/model.onnx"))
    return (table_of_recipes if "," in options.recipe else table)(options, names)


def table(options, names):
    print("| model | float: infopt to ORT, dB | file to float, dB | agreement | size | latency in ORT | file: infopt to ORT, dB | seconds |\n|---|---|---|---|---|---|---|---|")
    failed = False
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            cells = Judge(options, options.models / name, scratch).row()
        failed = failed or any("exit code" in c for c in cells)
        print("| " + " | ".join(cells) + " |", flush=True)
    return 1 if failed else 0


def table_of_recipes(options, names):
    recipes = options.recipe.split(",")
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    print("| model | " + " | ".join(recipes) + " |\n|" + "---|" * (len(recipes) + 1))
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            judge = Judge(options, options.models / name, options.keep or scratch)
            print(f"| {name}", end="", flush=True)
            for recipe in recipes:
                print(f" | {judge.cell(recipe)}", end="", flush=True)
            print(" |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
