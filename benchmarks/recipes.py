#!/usr/bin/env python3
"""Runs recipes over a folder of models and judges each file in ONNX Runtime.

    python benchmarks/recipes.py --zoo DIR --models a,b --run "LABEL: RECIPE [PATH=VALUE ...]" [--run ...] [--infopt BINARY]

DIR holds one folder a model (model.onnx, calib.npz, eval.npz) and evaluate.py, which judges. Each --run is a row for each model: a
recipe and changes of it, as `infopt quantize --recipe RECIPE --set PATH=VALUE` takes them. Prints a table; seconds are of the whole
process, the peak is its resident memory. METHOD.md says more.
"""

import argparse
import pathlib
import sys
import tempfile

from weight_only import REPOSITORY, evaluate, timed


def quality(figures):
    if "ppl" in figures:
        return f"{figures['ppl']:.4f}"
    accuracy = f"{100 * figures['acc']:.2f} %, " if "acc" in figures else ""
    return f"{accuracy}{100 * figures['agree']:.1f} % agree" if "agree" in figures else accuracy.rstrip(", ")


def parse_run(text):
    label, _, rest = text.partition(":")
    words = rest.split()
    if not label or not words:
        raise argparse.ArgumentTypeError(f"'{text}' isn't LABEL: RECIPE [PATH=VALUE ...]")
    return label.strip(), words[0], words[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--run", type=parse_run, action="append", required=True, metavar="'LABEL: RECIPE [PATH=VALUE ...]'")
    parser.add_argument("--infopt", default=REPOSITORY / "build/release/tools/infopt")
    options = parser.parse_args()
    print("| model | by | SQNR, dB | score | MB | seconds | peak, MB | latency / float |\n|---|---|---|---|---|---|---|---|", flush=True)
    for name in options.models.split(","):
        folder = options.zoo / name
        figures = evaluate(options, name, folder / "model.onnx")
        print(f"| {name} | float | | {quality(figures)} | {figures['mb']:.2f} | | | |", flush=True)
        for label, recipe, changes in options.run:
            with tempfile.TemporaryDirectory() as scratch:
                out = pathlib.Path(scratch) / "out.onnx"
                sets = [word for change in changes for word in ("--set", change)]
                seconds, peak = timed([options.infopt, "quantize", folder / "model.onnx", "--calib", folder / "calib.npz", "-o", out, "--recipe", recipe, *sets])
                figures = evaluate(options, name, out)
            print(f"| {name} | {label} | {figures['sqnr_db']:.1f} | {quality(figures)} | {figures['mb']:.2f} | {seconds:.1f} | {peak:.0f} | {figures['lat']:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
