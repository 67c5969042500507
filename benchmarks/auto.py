#!/usr/bin/env python3
"""Runs `infopt quantize --recipe auto` with ONNX Runtime as the engine over a folder of models: what was tried, and what came of it.

    python benchmarks/auto.py --zoo DIR --models a,b [--set PATH=VALUE ...] [--infopt BINARY]

DIR holds one folder a model (model.onnx, calib.npz, eval.npz) and evaluate.py, which judges the files. Each `--set` changes the recipe, gates among
it: `--set gates.min_sqnr_db=30`. Prints a row for each attempt, and one for the judge's figures of the chosen file. METHOD.md says more.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from recipes import quality
from weight_only import REPOSITORY, evaluate

ENGINE = REPOSITORY / "tools" / "engines" / "onnxruntime_latency.py"


def run(options, name, out, report):
    folder = options.zoo / name
    engine = f"{sys.executable} {ENGINE} {{model}} --data {folder / 'calib.npz'} --seconds {options.seconds}"
    sets = [word for change in options.set for word in ("--set", change)]
    command = [options.infopt, "quantize", folder / "model.onnx", "--calib", folder / "calib.npz", "--recipe", "auto", "--target", options.target, "--engine", engine, "-o", out, "--report", report, *sets]
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    if done.returncode not in (0, 8):
        sys.exit(f"infopt ended with {done.returncode}")
    return json.loads((report / "report.json").read_text()), done.returncode


def attempt_row(name, index, attempt, measured, chosen):
    if "failure" in attempt:
        return f"| {name} | {index + 1} | {attempt['name']} | | | | {attempt['failure']} | {measured['seconds']:.1f} |"
    mark = "**" if chosen else ""
    missed = ", ".join(attempt["gates_not_met"]) or "all met"
    return (f"| {name} | {index + 1} | {mark}{attempt['name']}{mark} | {attempt['sqnr_db']:.1f} | {attempt['size_ratio']:.3f} | {measured['latency_ratio']:.3f} | {missed} | "
            f"{measured['seconds']:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE")
    parser.add_argument("--target", default="ort-cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="of the engine's measurement, one model once")
    parser.add_argument("--infopt", default=REPOSITORY / "build/release/tools/infopt")
    options = parser.parse_args()
    options.zoo = options.zoo.resolve()
    print("| model | attempt | recipe | SQNR, dB | size | latency / float | gates | seconds |\n|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.models.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            out = pathlib.Path(scratch) / "out.onnx"
            report, code = run(options, name, out, pathlib.Path(scratch) / "report")
            search = report["search"]
            for i, (attempt, measured) in enumerate(zip(search["attempts"], report["measured"]["attempts"])):
                print(attempt_row(name, i, attempt, measured, i == search["chosen"]), flush=True)
            figures = evaluate(options, name, out)
            verdict = "exit code 0" if code == 0 else f"exit code {code}"
            print(f"| {name} | | judged: {quality(figures)} | {figures['sqnr_db']:.1f} | {figures['mb']:.2f} MB | {figures['lat']:.2f} | {verdict} | |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
