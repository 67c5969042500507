#!/usr/bin/env python3
"""Compares infopt's runtime with ONNX Runtime's on a folder of models: steady state, load and first run, peak memory.

    python benchmarks/runtime_vs_ort.py --zoo DIR [--models a,b] [--only float|int8] [--threads 1,2] [--batches 1,8] [--out FILE.json]
    python benchmarks/runtime_vs_ort.py --zoo DIR --models a --only float --threads 1 --batches 1 --quick     a few seconds

DIR holds one folder a model: model.onnx, calib.npz (for the int8 file, which `infopt quantize` makes) and eval.npz, whose
first rows are the input. METHOD.md says how each figure is taken. Imports nothing but the standard library.
"""

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent
SAMPLES = 32
GEOMEAN, AIM_INT8, WORST, START, PEAK = 1.0, 1.2, 0.7, 1.0, 1.0


class Failed(Exception):
    pass


def geomean(values):
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def median_of(records, key):
    return statistics.median(r[key] for r in records)


def numbers(text):
    try:
        values = [int(v) for v in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' isn't a list of positive numbers")
    return values


def last_line(text):
    return (text.strip().splitlines() or [""])[-1][:300]


class OrtWorker:
    """A process that holds one ONNX Runtime session; it sleeps while infopt runs."""

    def __init__(self, model, data, threads):
        self.process = subprocess.Popen([sys.executable, HERE / "ort_worker.py", model, data, "--threads", str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.fixed_batch = self.answer()["fixed_batch"]
        except Failed:
            self.close()
            raise

    def answer(self):
        line = self.process.stdout.readline()
        figures = json.loads(line) if line.startswith("{") else {"error": "it ended"}
        if "error" in figures:
            raise Failed("ONNX Runtime: " + figures["error"])
        return figures

    def measure(self, batch, warmup, runs):
        try:
            self.process.stdin.write(json.dumps({"batch": batch, "warmup": warmup, "runs": runs}) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended, and the answer says why
        return self.answer()

    def close(self):
        try:
            self.process.stdin.close()
        except OSError:
            pass
        self.process.wait()
        self.process.stdout.close()


class Runtimes:
    def __init__(self, args, scratch):
        self.args, self.scratch = args, scratch

    def infopt(self, model, data, threads, batch, warmup, runs):
        command = [self.args.infopt, "bench", model, "--input", data, "--threads", threads, "--batch", batch,
                   "--warmup", warmup, "--runs", runs, "--json"]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode:
            raise Failed(last_line(done.stderr) or f"infopt: exit {done.returncode}")
        figures = json.loads(done.stdout)
        return {**figures, **figures["batches"][0], "peak_bytes": figures["memory_peak_bytes"]}

    def ort_start(self, model, data, threads, batch, runs):
        command = [sys.executable, HERE / "ort_worker.py", model, data, "--threads", threads, "--start", batch, "--runs", runs]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        figures = json.loads(last_line(done.stdout) or '{"error": "it ended"}')
        if "error" in figures:
            raise Failed("ONNX Runtime: " + figures["error"])
        return figures

    def int8_file(self, name):
        folder = self.args.int8_dir or self.scratch
        file = folder / f"{name}.onnx"
        if file.exists():
            return file
        zoo = self.args.zoo / name
        command = [self.args.infopt, "quantize", zoo / "model.onnx", "--calib", zoo / "calib.npz", "-o", file, "--samples", SAMPLES]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        if done.returncode:
            raise Failed(last_line(done.stderr))
        return file

    def steady(self, worker, model, data, threads, batch):
        """Rounds of both in turns, each as many runs as take about --seconds in ONNX Runtime; who begins alternates."""
        estimate = worker.measure(batch, 1, 2)["min_ms"]
        runs = max(self.args.min_runs, math.ceil(1e3 * self.args.seconds / estimate))
        warmup = max(2, runs // 5)
        rounds = []
        for turn in range(self.args.rounds):
            both = {"ort": lambda: worker.measure(batch, warmup, runs),
                    "infopt": lambda: self.infopt(model, data, threads, batch, warmup, runs)}
            order = ("ort", "infopt") if turn % 2 == 0 else ("infopt", "ort")
            figures = {engine: both[engine]() for engine in order}
            ort, infopt = (figures[engine]["median_ms"] for engine in ("ort", "infopt"))
            rounds.append({"ort_ms": ort, "infopt_ms": infopt, "ratio": ort / infopt})
        return {"runs": runs, "rounds": rounds,
                **{key: median_of(rounds, key) for key in ("ort_ms", "infopt_ms", "ratio")}}

    def starting(self, model, data, threads, batch):
        """Load and first run, and memory, each in a new process."""
        rounds = []
        for turn in range(self.args.start_rounds):
            both = {"ort": lambda: self.ort_start(model, data, threads, batch, 5),
                    "infopt": lambda: self.infopt(model, data, threads, batch, 0, 5)}
            order = ("ort", "infopt") if turn % 2 == 0 else ("infopt", "ort")
            figures = {engine: both[engine]() for engine in order}
            entry = {f"{engine}_{key}": f[key] for engine, f in figures.items() for key in ("load_ms", "first_run_ms", "peak_bytes")}
            for engine in figures:
                entry[f"{engine}_start_ms"] = entry[f"{engine}_load_ms"] + entry[f"{engine}_first_run_ms"]
            entry["start_ratio"] = entry["ort_start_ms"] / entry["infopt_start_ms"]
            rounds.append(entry)
        return {"start_rounds": rounds, **{key: median_of(rounds, key) for key in rounds[0]}}

    def rows(self, name, precision):
        model, data = self.args.zoo / name / "model.onnx", self.args.zoo / name / "eval.npz"
        row = lambda **more: {"model": name, "precision": precision, **more}
        try:
            if precision == "int8":
                model = self.int8_file(name)
        except Failed as error:
            yield row(error=str(error))
            return
        for threads in self.args.threads:
            try:
                worker = OrtWorker(model, data, threads)
            except Failed as error:
                yield row(threads=threads, error=str(error))
                continue
            try:
                for batch in self.args.batches:
                    if worker.fixed_batch not in (0, batch):
                        yield row(threads=threads, batch=batch, skipped=f"fixed batch {worker.fixed_batch}")
                        continue
                    try:
                        figures = self.steady(worker, model, data, threads, batch)
                        if self.args.start_rounds:
                            figures.update(self.starting(model, data, threads, batch))
                        yield row(threads=threads, batch=batch, **figures)
                    except Failed as error:
                        yield row(threads=threads, batch=batch, error=str(error))
            finally:
                worker.close()


def means_of(rows, cut):
    means = {}
    for precision in ("float", "int8"):
        mine = [r for r in rows if r["precision"] == precision]
        good = [r for r in mine if "ratio" in r]
        if not mine:
            continue
        means[precision] = {
            "ratio": geomean([r["ratio"] for r in good]), "worst": min((r["ratio"] for r in good), default=None),
            "start_ratio": geomean([r["start_ratio"] for r in good if "start_ratio" in r]),
            "complete": not cut and not any("error" in r for r in mine),
        }
    return means


def judge(rows, means):
    """[(what, figure or None, relation, bound, met or None)]"""
    verdicts = []

    def add(what, figure, relation, bound):
        met = None if figure is None else (figure >= bound if relation == ">=" else figure <= bound)
        verdicts.append({"what": what, "figure": figure, "relation": relation, "bound": bound, "met": met})

    for precision, m in means.items():
        add(f"{precision}: ORT/infopt, geometric mean", m["ratio"] if m["complete"] else None, ">=", GEOMEAN)
        if precision == "int8":
            add(f"{precision}: ORT/infopt, geometric mean (aim)", m["ratio"] if m["complete"] else None, ">=", AIM_INT8)
        add(f"{precision}: ORT/infopt, the worst row", m["worst"] if m["complete"] else None, ">=", WORST)
        started = [r for r in rows if r["precision"] == precision and "start_ratio" in r]
        if started:
            peak_ratio = lambda r: r["infopt_peak_bytes"] / r["ort_peak_bytes"]
            slow, large = min(started, key=lambda r: r["start_ratio"]), max(started, key=peak_ratio)
            add(f"{precision}: load + first run, ORT/infopt, the worst row ({label(slow)})", slow["start_ratio"], ">=", START)
            add(f"{precision}: peak memory, infopt/ORT, the worst row ({label(large)})", peak_ratio(large), "<=", PEAK)
    return verdicts


def label(row):
    return f"{row['model']}, {row['threads']} thread{'s' * (row['threads'] > 1)}, batch {row['batch']}"


def first_line(command):
    try:
        return (subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY).stdout.splitlines() or [""])[0]
    except OSError:
        return ""


def machine(infopt):
    cpu, flags = platform.processor(), ""
    try:
        for line in open("/proc/cpuinfo"):
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                cpu = value.strip()
            if key.strip() == "flags":
                flags = value
                break
    except OSError:
        pass
    try:
        ort = importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        ort = None
    versions = {"python": platform.python_version(), "onnxruntime": ort,
                "infopt": first_line([str(infopt), "--version"]).removeprefix("infopt "),
                "commit": first_line(["git", "describe", "--always", "--dirty"])}
    return {"cpu": cpu, "cores": os.cpu_count(), "vnni": any("vnni" in f for f in flags.split()), "date": datetime.date.today().isoformat(),
            "load_before": round(os.getloadavg()[0], 2), "versions": versions}


def fmt(value, spec=".2f", scale=1.0):
    return "-" if value is None else f"{value * scale:{spec}}"


def markdown(report):
    m = report["machine"]
    lines = [f"{m['cpu']}, {m['cores']} cores, VNNI {'yes' if m['vnni'] else 'no'}; {m['date']}; load {m['load_before']} at the start; "
             + ", ".join(f"{k} {v or 'none'}" for k, v in m["versions"].items()), "",
             "| model | precision | threads | batch | infopt, ms | ORT, ms | ORT/infopt | its rounds | infopt start, ms | ORT start, ms | "
             "ORT/infopt | infopt peak, MB | ORT peak, MB |", "|" + "---|" * 13]
    for r in report["rows"]:
        head = f"| {r['model']} | {r['precision']} | {r.get('threads', '')} | {r.get('batch', '')} | "
        if "ratio" not in r:
            lines.append(head + (r.get("skipped") or "failed: " + r["error"]).replace("|", "/") + " |" * 9)
            continue
        ratios = [x["ratio"] for x in r["rounds"]]
        lines.append(head + " | ".join([
            fmt(r["infopt_ms"], ".3f"), fmt(r["ort_ms"], ".3f"), f"**{r['ratio']:.2f}**", f"{min(ratios):.2f} to {max(ratios):.2f}",
            fmt(r.get("infopt_start_ms"), ".1f"), fmt(r.get("ort_start_ms"), ".1f"), fmt(r.get("start_ratio")),
            fmt(r.get("infopt_peak_bytes"), ".0f", 1e-6), fmt(r.get("ort_peak_bytes"), ".0f", 1e-6)]) + " |")
    for precision, g in report["means"].items():
        lines.append(f"| geometric mean | {precision} | | | | | **{fmt(g['ratio'])}** | worst {fmt(g['worst'])} | | | "
                     f"{fmt(g['start_ratio'])} | | |")
    lines += ["", "More than 1 in ORT/infopt: infopt is faster. Start: loading and the first run.", "",
              "| target | figure | bound | |", "|---|---|---|---|"]
    for t in report["targets"]:
        met = {None: "not measured", True: "met", False: "**not met**"}[t["met"]]
        lines.append(f"| {t['what']} | {fmt(t['figure'])} | {t['relation']} {t['bound']} | {met} |")
    return "\n".join(lines)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, required=True, help="folder of the models")
    parser.add_argument("--infopt", type=pathlib.Path, default=REPOSITORY / "build/release/tools/infopt",
                        help="the binary (default: %(default)s)")
    parser.add_argument("--models", help="default: every folder of --zoo that has model.onnx and eval.npz")
    parser.add_argument("--only", choices=("float", "int8"))
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="default: 1,2")
    parser.add_argument("--batches", type=numbers, default=[1, 8], help="default: 1,8")
    parser.add_argument("--rounds", type=int, default=5, help="turns of both, whose ratios' median counts (default: 5)")
    parser.add_argument("--start-rounds", type=int, default=3, help="new processes for load, first run and memory; 0: none (default: 3)")
    parser.add_argument("--seconds", type=float, default=0.3, help="about so long is one turn (default: 0.3)")
    parser.add_argument("--min-runs", type=int, default=3, help="fewest runs of a turn (default: 3)")
    parser.add_argument("--quick", action="store_true", help="3 turns of 0.15 s, no new processes: while tuning")
    parser.add_argument("--int8-dir", type=pathlib.Path,
                        help="folder of the int8 files, NAME.onnx; what isn't there is made there (default: a temporary one)")
    parser.add_argument("--out", type=pathlib.Path, help="also write everything measured as JSON")
    parser.add_argument("--check", action="store_true", help="exit 1 unless every target but the aim is met")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.start_rounds, args.seconds = 3, 0, 0.15
    if args.rounds < 1 or args.start_rounds < 0 or args.seconds <= 0 or args.min_runs < 1:
        parser.error("--rounds, --seconds and --min-runs must be positive")
    args.zoo, args.infopt = args.zoo.resolve(), args.infopt.resolve()
    if not args.infopt.is_file():
        parser.error(f"{args.infopt} does not exist")
    if args.models:
        args.models = [n for n in args.models.split(",") if n]
    elif args.zoo.is_dir():
        args.models = sorted(p.parent.name for p in args.zoo.glob("*/model.onnx") if (p.parent / "eval.npz").exists())
    if not args.models:
        parser.error(f"there is no model in {args.zoo}")
    for name in args.models:
        for file in ("model.onnx", "eval.npz"):
            if not (args.zoo / name / file).exists():
                parser.error(f"{args.zoo / name / file} does not exist")
    if args.int8_dir:
        args.int8_dir.mkdir(parents=True, exist_ok=True)
    return args


def told(row):
    """One row as it comes, for who waits."""
    head = f"{row['model']} {row['precision']}" + "".join(f", {key} {row[key]}" for key in ("threads", "batch") if key in row)
    if "ratio" not in row:
        return f"{head}: {row.get('skipped') or row['error']}"
    return f"{head}: infopt {row['infopt_ms']:.3f} ms, ORT {row['ort_ms']:.3f} ms, {row['ratio']:.2f}"


def main():
    args = arguments()
    report = {"machine": machine(args.infopt), "rounds": args.rounds, "seconds": args.seconds, "rows": []}
    cut = False
    with tempfile.TemporaryDirectory(prefix="infopt-runtime-") as scratch:
        runtimes = Runtimes(args, pathlib.Path(scratch))
        try:
            for name in args.models:
                for precision in ("float", "int8"):
                    for row in runtimes.rows(name, precision) if args.only in (None, precision) else ():
                        report["rows"].append(row)
                        print(told(row), file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            cut = True  # what there is, is printed
    report["means"] = means_of(report["rows"], cut)
    report["targets"] = judge(report["rows"], report["means"])
    print(markdown(report))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    if cut:
        return 130
    return 1 if args.check and not all(t["met"] for t in report["targets"] if "(aim)" not in t["what"]) else 0


if __name__ == "__main__":
    sys.exit(main())
