#!/usr/bin/env python3
"""Compares weight-only quantization: infopt's nearest, AWQ and GPTQ beside ONNX Runtime's MatMulNBitsQuantizer, blocks of 32, 4 bits.

    python benchmarks/weight_only.py --zoo DIR [--models lm,minilm] [--infopt BINARY] [--out FILE.md]

DIR holds one folder a model (model.onnx, calib.npz, eval.npz) and evaluate.py, which judges every file in ONNX Runtime. The peer
needs the package onnx_ir; without it its rows are left out. METHOD.md says how each figure is taken.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
GRIDS = {"int4": ["type=int4", "symmetric=true"], "uint4": ["type=uint4", "symmetric=false"]}
PEER = """
import sys, onnx
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
source, out, symmetric = sys.argv[1:]
q = MatMulNBitsQuantizer(onnx.load(source), block_size=32, is_symmetric=symmetric == "1", bits=4)
q.process()
q.model.save_model_to_file(out)
"""


def timed(command):
    """Seconds and peak memory in MB of a child; its error output where it fails."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    words = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {child.returncode}\n{words}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def variants(options):
    for grid, settings in GRIDS.items():
        if importlib.util.find_spec("onnx_ir"):
            yield "ONNX Runtime, nearest", grid, lambda source, folder, out, grid=grid: [sys.executable, "-c", PEER, source, out, str(int(grid == "int4"))]
        for algorithm in ("nearest", "awq", "gptq"):
            recipe = "int4-awq" if algorithm == "awq" else "int4-gptq"

            def command(source, folder, out, recipe=recipe, algorithm=algorithm, settings=settings):
                changes = [f"algorithm={algorithm}", *settings]
                return [options.infopt, "quantize", source, "--calib", folder / "calib.npz", "-o", out, "--recipe", recipe, "--set", "quantize_weights.min_sqnr_db=-100", *(a for c in changes for a in ("--set", f"quantize_weights.{c}"))]

            yield f"infopt, {algorithm}", grid, command


def evaluate(options, name, out):
    done = subprocess.run([sys.executable, options.zoo / "evaluate.py", name, out], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def score(figures):
    return f"{figures['ppl']:.4f}" if "ppl" in figures else f"{100 * figures['acc']:.1f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, required=True)
    parser.add_argument("--models", default="lm,minilm")
    parser.add_argument("--infopt", default=REPOSITORY / "build/release/tools/infopt")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    lines = ["| model | grid | by | SQNR, dB | score | MB | seconds | peak, MB | latency / float |", "|---|---|---|---|---|---|---|---|---|"]
    for name in options.models.split(","):
        folder = options.zoo / name
        figures = evaluate(options, name, folder / "model.onnx")
        lines.append(f"| {name} | float32 | | | {score(figures)} | {figures['mb']:.1f} | | | |")
        for by, grid, command in variants(options):
            with tempfile.TemporaryDirectory() as scratch:
                out = pathlib.Path(scratch) / "out.onnx"
                seconds, peak = timed(command(folder / "model.onnx", folder, out))
                figures = evaluate(options, name, out)
            lines.append(f"| {name} | {grid} | {by} | {figures['sqnr_db']:.1f} | {score(figures)} | {figures['mb']:.1f} | {seconds:.1f} | {peak:.0f} | {figures['lat']:.2f} |")
            print(lines[-1], file=sys.stderr, flush=True)
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
