#!/usr/bin/env python3
"""Does infopt's own runtime agree with ONNX Runtime on a quantized file?

    python benchmarks/agreement.py FLOAT.onnx OUT.onnx --input X.npz [--samples 16] [--batch 1]

Runs OUT.onnx in infopt, in ONNX Runtime with its default optimizations, and in ONNX Runtime with none (the literal
reading of the file: every QuantizeLinear and DequantizeLinear by itself), and FLOAT.onnx in ONNX Runtime, all on the same
batches, one process or session call a batch. Prints the SQNR between each two. Exits 1 unless infopt is at least
--margin dB closer to ONNX Runtime, in both readings, than the file is to the float model; at or above --equal dB two
runtimes count as equal up to float rounding.
"""

import argparse
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def sqnr(reference, other):
    """In dB; infinite where the two are equal, minus infinite where the other isn't finite."""
    noise = signal = 0.0
    for name, a in reference.items():
        a, b = a.astype(np.float64).ravel(), other[name].astype(np.float64).ravel()
        if a.size != b.size:
            raise SystemExit(f"output {name}: {reference[name].shape} and {other[name].shape}")
        signal += float(a @ a)
        noise += float((a - b) @ (a - b))
    if not math.isfinite(noise):
        return -math.inf
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)


def joined(parts):
    return {name: np.concatenate([p[name].reshape(-1) for p in parts]) for name in parts[0]}


def in_ort(file, batches, level):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    needed = {i.name for i in session.get_inputs()}
    return joined([dict(zip(names, session.run(None, {k: v for k, v in b.items() if k in needed}))) for b in batches])


def in_infopt(infopt, file, batches, needed, folder):
    parts = []
    for k, batch in enumerate(batches):
        x, y = folder / f"x{k}.npz", folder / f"y{k}.npz"
        np.savez(x, **{name: v for name, v in batch.items() if name in needed})
        done = subprocess.run([infopt, "run", file, "--input", x, "-o", y], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"infopt run: exit {done.returncode}: {done.stderr.strip()[-500:]}")
        parts.append(dict(np.load(y)))
    return joined(parts)


def main():
    default = next((p for p in (REPOSITORY / "build/release/tools/infopt", REPOSITORY / "build/release/infopt") if p.is_file()),
                   REPOSITORY / "build/release/tools/infopt")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float", type=pathlib.Path)
    parser.add_argument("quantized", type=pathlib.Path)
    parser.add_argument("--input", type=pathlib.Path, required=True, help="npz of inputs by name; `label` is ignored")
    parser.add_argument("--infopt", type=pathlib.Path, default=default)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--margin", type=float, default=5.0)
    parser.add_argument("--equal", type=float, default=90.0)
    args = parser.parse_args()
    data = {k: v for k, v in np.load(args.input).items() if k != "label"}
    count = min(args.samples, min(len(v) for v in data.values())) // args.batch * args.batch
    if count < 1:
        parser.error("fewer samples than one batch")
    batches = [{k: v[i : i + args.batch] for k, v in data.items()} for i in range(0, count, args.batch)]
    levels = onnxruntime.GraphOptimizationLevel
    session = onnxruntime.InferenceSession(str(args.quantized), providers=["CPUExecutionProvider"])
    needed = {i.name for i in session.get_inputs()}
    outputs = [o.name for o in session.get_outputs()]
    del session
    truth = in_ort(args.float, batches, levels.ORT_ENABLE_ALL)
    truth = dict(zip(outputs, truth.values())) if set(truth) != set(outputs) else truth
    ort = in_ort(args.quantized, batches, levels.ORT_ENABLE_ALL)
    literal = in_ort(args.quantized, batches, levels.ORT_DISABLE_ALL)
    with tempfile.TemporaryDirectory(prefix="infopt-agreement-") as folder:
        own = in_infopt(args.infopt, args.quantized, batches, needed, pathlib.Path(folder))
    if not set(outputs) <= set(own):
        raise SystemExit(f"infopt run wrote {sorted(own)}, expected {outputs}")
    print(f"{args.quantized.name}: {count} samples in batches of {args.batch}\n")
    print("| against | float model, dB | ORT, dB | ORT unoptimized, dB |\n|---|---|---|---|")
    for title, x in (("infopt", own), ("ORT", ort), ("ORT unoptimized", literal)):
        cells = ["-" if x is ref else f"{sqnr(ref, x):.1f}" for ref in (truth, ort, literal)]
        print(f"| {title} | " + " | ".join(cells) + " |")
    print()
    good = True
    for title, x in (("ORT", ort), ("ORT unoptimized", literal)):
        file_to_float, apart = sqnr(truth, x), sqnr(x, own)
        met = apart >= min(file_to_float + args.margin, args.equal)
        good &= met
        print(f"infopt to {title}: {apart:.1f} dB, file to float: {file_to_float:.1f} dB: "
              f"{'met' if met else 'NOT MET'} (margin {args.margin:g} dB)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
