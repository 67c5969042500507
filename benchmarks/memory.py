#!/usr/bin/env python3
"""Does the peak memory of `infopt quantize` depend on the number of calibration samples?

    python benchmarks/memory.py --zoo DIR [--models a,b] [--repeats 5]
    python benchmarks/memory.py --zoo DIR --models efflite0 --big 2e9 --scratch DISK

For each model the same command with 32 and with 64 samples, in turns; data of fewer samples is repeated to 64. With --big, a
deflated .npz of about so many bytes is generated from the model's calibration data (floating rows scaled by noise, so that they don't
compress), and quantized with its first 32 samples, its first 64, and all. Peak memory is the process's maximum resident set;
the figure of each number of samples is the median of the repeats. Exits 1 where it differs by more than --tolerance. The measuring
process imports nothing but the standard library: a child's peak memory starts at its parent's.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def generate(source, target, size):
    """In a process of its own. Rows of the arrays of `source`, over and over; at least 64, then until the file has `size` bytes."""
    import zipfile
    import zlib

    import numpy as np

    data = {k: v for k, v in np.load(source).items() if k != "label"}
    rows = min(len(v) for v in data.values())
    random = np.random.default_rng(1)

    def row(array, k):
        x = array[k % rows][None]
        return x * random.uniform(0.99, 1.01, x.shape).astype(x.dtype) if array.dtype.kind == "f" and k >= rows else x

    each = sum(len(zlib.compress(np.ascontiguousarray(row(v, rows)).tobytes(), 1)) for v in data.values())
    count = max(64, int(size / each))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in data.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, {"descr": array.dtype.str, "fortran_order": False, "shape": (count, *array.shape[1:])})
                for k in range(count):
                    member.write(np.ascontiguousarray(row(array, k)).tobytes())
    print(count)


def peak(command):
    """Seconds and peak MB of one run."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    message = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit {child.returncode}: {message.decode(errors='replace').strip()[-300:]}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, required=True)
    parser.add_argument("--models", default="ocr_cls,efflite0,minilm,mnist_resnet,lm,resnet50")
    parser.add_argument("--infopt", type=pathlib.Path, default=REPOSITORY / "build/release/tools/infopt")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--big", type=float, default=0, help="bytes of the generated data")
    parser.add_argument("--tolerance", type=float, default=0.05)
    parser.add_argument("--scratch", type=pathlib.Path)
    args = parser.parse_args()
    good = True
    print("| model | data, MB | samples | peak, MB (least to most) | seconds | to the first |\n|---|---|---|---|---|---|")
    for name in args.models.split(","):
        with tempfile.TemporaryDirectory(dir=args.scratch, prefix="infopt-memory-") as folder:
            data, out = pathlib.Path(folder) / "calib.npz", pathlib.Path(folder) / "out.onnx"
            done = subprocess.run([sys.executable, __file__, "--generate", args.zoo / name / "calib.npz", data, str(args.big)], check=True, capture_output=True, text=True)
            counts = [32, 64] + ([int(done.stdout)] if args.big else [])
            runs = {n: [] for n in counts}
            for _ in range(args.repeats):
                for n in counts:
                    if n > 64 and runs[n]:
                        continue  # the long run: once
                    runs[n].append(peak([args.infopt, "quantize", args.zoo / name / "model.onnx", "--calib", data, "--samples", str(n), "-o", out]))
            megabytes = data.stat().st_size / 1e6
        first = statistics.median(m for _, m in runs[32])
        for n in counts:
            seconds, memory = (sorted(column) for column in zip(*runs[n]))
            ratio = statistics.median(memory) / first
            good &= ratio <= 1 + args.tolerance if n > 64 else abs(ratio - 1) <= args.tolerance
            print(f"| {name} | {megabytes:.0f} | {n} | {statistics.median(memory):.1f} ({memory[0]:.1f} to {memory[-1]:.1f}) | {statistics.median(seconds):.2f} | {ratio:.3f} |")
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--generate"]:
        generate(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        sys.exit(main())
