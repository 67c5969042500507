#!/usr/bin/env python3
"""Compares `infopt quantize` with ONNX Runtime's and onnxsim's quantizers on a folder of models.

    python benchmarks/quantize_vs_ort.py --zoo DIR [--models a,b] [--peers none|ort|onnxsim|all] [--out FILE.json]

DIR holds one folder a model (model.onnx, calib.npz, eval.npz) and evaluate.py, peer_ort.py, peer_onnxsim.py; nothing is
written there. METHOD.md says how each figure is taken. This driver imports nothing but the standard library: a child's
peak memory starts at its parent's (see METHOD.md), so the parent stays small.
"""

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SAMPLES = 32
ENTROPY = ["--set", "calibrate.method=entropy"]

# What each model is asked for. `drop` is in points of accuracy, `ppl` is perplexity's rise as a fraction of the float
# model's; both are signed, so doing better than the float model meets them.
TARGETS = {
    "ocr_cls": {"drop": ("<=", 0.5), "sqnr_db": (">=", 25.0), "size": ("<=", 0.42), "lat": ("<=", 1.05)},
    "efflite0": {"agree": (">=", 0.92), "sqnr_db": (">=", 22.0), "size": ("<=", 0.31), "lat": ("<=", 0.75)},
    "minilm": {"drop": ("<=", 1.0), "sqnr_db": (">=", 18.0), "size": ("<=", 0.40), "lat": ("<=", 0.80)},
    "mnist_resnet": {"drop": ("<=", 0.2), "sqnr_db": (">=", 33.0), "size": ("<=", 0.33), "lat": ("<=", 0.80)},
    "lm": {"ppl": ("<=", 0.01), "sqnr_db": (">=", 30.0), "size": ("<=", 0.30), "lat": ("<=", 0.85)},
    "resnet50": {"sqnr_db": (">=", 28.5), "size": ("<=", 0.27), "lat": ("<=", 0.40)},
}
LATENCY_GEOMEAN = 0.65
SPEEDUP_OVER_ORT = 5.0
SPEEDUP_OVER_ONNXSIM = 1.0
ENTROPY_RATIO = 1.5
PEAK_FACTOR, PEAK_EXTRA_MB = 2.0, 150.0

LABELS = {"drop": "drop, points", "ppl": "perplexity rise", "sqnr_db": "SQNR, dB", "agree": "agreement",
          "size": "size ratio", "lat": "latency ratio"}


class Failed(Exception):
    pass


def geomean(values):
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def measured_run(command, log):
    """Runs a command; its wall seconds and its own peak memory in MB."""
    with open(log, "wb") as sink:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        tail = pathlib.Path(log).read_text(errors="replace").strip().splitlines()[-1:]
        raise Failed(f"exit {child.returncode}: {' '.join(tail)[:300]}")
    return seconds, usage.ru_maxrss * 1024 / 1e6  # Linux counts in KiB


def prepare_zoo(zoo, scratch, names):
    """A writable zoo of links to the real one, where evaluate.py can leave its reference outputs."""
    for name in names:
        (scratch / name).mkdir(parents=True)
        model = zoo / name / "model.onnx"
        skeleton = zoo / name / "skeleton.onnx"
        if not model.exists() and skeleton.exists():
            subprocess.run([sys.executable, zoo / "fill.py", skeleton, scratch / name / "model.onnx"], check=True)
            continue
        for file in (zoo / name).iterdir():
            if file.name != "ref.npy":
                (scratch / name / file.name).symlink_to(file)
        if not model.exists():
            raise SystemExit(f"{model} is missing")


def digest(folder):
    sums = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as file:  # in pieces: this process must stay small
            sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


class Bench:
    def __init__(self, args, scratch):
        self.args, self.scratch, self.zoo = args, scratch, scratch / "zoo"
        self.env = {**os.environ, "ZOO": str(self.zoo), "N": str(SAMPLES)}
        self.counter = 0

    def json_line(self, *words):
        """Runs Python on one of the zoo's scripts; the JSON object that it prints."""
        done = subprocess.run([sys.executable, *words], env=self.env, capture_output=True, text=True)
        for line in reversed(done.stdout.splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}, no result"])[-1]
        raise Failed(last.replace(f"{self.scratch}{os.sep}", "")[:200])

    def quantize(self, name, extra=()):
        """One run of infopt: (seconds, peak MB, folder that holds its output)."""
        self.counter += 1
        folder = self.scratch / "out" / f"{name}-{self.counter}"
        folder.mkdir(parents=True)
        command = [self.args.infopt, "quantize", self.zoo / name / "model.onnx", "--calib", self.zoo / name / "calib.npz",
                   "-o", folder / "out.onnx", "--samples", str(SAMPLES), *extra]
        if self.args.threads and "--threads" not in extra:
            command += ["--threads", str(self.args.threads)]
        seconds, peak = measured_run([str(c) for c in command], self.scratch / "log")
        return seconds, peak, folder

    def same_bytes(self, name, option, values):
        seen = []
        for value in values:
            _, _, folder = self.quantize(name, (option, str(value)))
            seen.append(digest(folder))
            shutil.rmtree(folder)
        return all(s == seen[0] for s in seen)

    def evaluate(self, name, file):
        """evaluate.py's result; its latency measured again in new processes, and the median of all kept."""
        result = self.json_line(self.args.zoo / "evaluate.py", name, file)
        runs = [{k: result[k] for k in ("ms_1t", "ms_float", "lat")}]
        again = ("import json, sys; sys.path.insert(0, sys.argv[1]); import evaluate; "
                 "print(json.dumps(dict(zip(('ms_1t', 'ms_float', 'lat'), evaluate.interleaved(*sys.argv[2:])))))")
        while len(runs) < self.args.latencies:
            runs.append(self.json_line("-B", "-c", again, self.args.zoo, name, file))
        middle = sorted(runs, key=lambda r: r["lat"])[len(runs) // 2]
        return {**result, **middle, "lat_all": [r["lat"] for r in runs]}

    def peer(self, script, name, words):
        out = self.scratch / f"peer-{name}.onnx"
        line = self.json_line(self.args.zoo / script, name, out, *words)
        line["seconds"] = line["pre_s"] + line["quant_s"]
        line["file"] = str(out)
        return line

    def model(self, name):
        args, record = self.args, {"model": name}
        say = lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True)
        record["float_mb"] = os.path.getsize(self.zoo / name / "model.onnx") / 1e6
        say("the float model's score")
        record["float"] = self.evaluate(name, self.zoo / name / "model.onnx")
        notes = record["notes"] = []  # what failed beside the default run, which alone decides whether the model failed
        say("infopt: the same bytes for other threads and batches (also the warm-up)")
        for key, option, values in (("same_bytes_threads", "--threads", (1, 2)), ("same_bytes_batch", "--batch", (1, 8))):
            try:
                record[key] = self.same_bytes(name, option, values)
            except Failed as error:
                notes.append(f"{option}: {error}")
        try:
            default, entropy, peaks = [], [], []
            for turn in range(args.repeats):  # the two in turns, so that a slow moment hits both
                say(f"infopt: run {turn + 1} of {args.repeats}")
                seconds, peak, kept = self.quantize(name)
                default.append(seconds)
                peaks.append(peak)
                try:
                    if len(entropy) == turn:
                        seconds, peak, folder = self.quantize(name, ENTROPY)
                        entropy.append(seconds)
                        peaks.append(peak)
                        shutil.rmtree(folder)
                except Failed as error:
                    notes.append(f"{' '.join(ENTROPY)}: {error}")
                if turn + 1 < args.repeats:
                    shutil.rmtree(kept)
            record.update(seconds=statistics.median(default), seconds_all=default, peak_mb=max(peaks))
            if entropy:
                record.update(entropy_seconds=statistics.median(entropy), entropy_seconds_all=entropy)
            say("infopt: evaluation")
            result = record["infopt"] = self.evaluate(name, kept / "out.onnx")
            result["size"] = result["mb"] / record["float_mb"]
            if "acc" in result:
                result["drop"] = 100 * (record["float"]["acc"] - result["acc"])
            if "ppl" in result:
                result["ppl_rise"] = result["ppl"] / record["float"]["ppl"] - 1
        except Failed as error:
            record["error"] = str(error)
            say(f"infopt failed: {error}")
        for peer, script, words in (("ort", "peer_ort.py", ["minmax", "per_channel"]), ("onnxsim", "peer_onnxsim.py", ["minmax"])):
            if args.peers not in ("all", peer):
                continue
            say(peer)
            try:
                record[peer] = self.peer(script, name, words)
                if args.peer_scores:
                    record[peer]["result"] = self.evaluate(name, record[peer]["file"])
            except Failed as error:
                record.setdefault(peer, {})["error"] = str(error)
                say(f"{peer} failed: {error}")
            record.get(peer, {}).pop("file", None)
        return record


def judge(records):
    """[(subject, what, figure or None, relation, bound, met or None)]"""
    verdicts = []

    def add(subject, what, figure, relation, bound):
        met = None if figure is None else (figure <= bound if relation == "<=" else figure >= bound)
        verdicts.append({"subject": subject, "what": what, "figure": figure, "relation": relation, "bound": bound, "met": met})

    for r in records:
        result = r.get("infopt", {})
        for key, (relation, bound) in TARGETS.get(r["model"], {}).items():
            figure = result.get("ppl_rise" if key == "ppl" else key)
            # evaluate.py rounds to four decimals; a difference of two scores carries float noise on top
            add(r["model"], LABELS[key], None if figure is None else round(figure, 6), relation, bound)
        add(r["model"], "peak memory, MB", r.get("peak_mb"), "<=", PEAK_FACTOR * r["float_mb"] + PEAK_EXTRA_MB)
        add(r["model"], "entropy's time / default's", ratio(r.get("entropy_seconds"), r.get("seconds")), "<=", ENTROPY_RATIO)
        for key, what in (("same_bytes_threads", "same bytes, --threads 1 and 2"), ("same_bytes_batch", "same bytes, --batch 1 and 8")):
            add(r["model"], what, None if key not in r else int(r[key]), ">=", 1)
    means = means_of(records)
    complete = all("infopt" in r for r in records)
    add("all", "latency ratio, geometric mean", means["lat"] if complete else None, "<=", LATENCY_GEOMEAN)
    if any("ort" in r for r in records):
        add("all", "speed-up over ONNX Runtime min-max", means["speedup_ort"] if complete else None, ">=", SPEEDUP_OVER_ORT)
    if any("onnxsim" in r for r in records):
        add("all", "speed-up over onnxsim min-max", means["speedup_onnxsim"] if complete else None, ">=", SPEEDUP_OVER_ONNXSIM)
    return verdicts


def ratio(a, b):
    return a / b if a and b else None


def means_of(records):
    pick = lambda f: geomean([v for v in map(f, records) if v])
    return {
        "lat": pick(lambda r: r.get("infopt", {}).get("lat")),
        "size": pick(lambda r: r.get("infopt", {}).get("size")),
        "seconds": pick(lambda r: r.get("seconds")),
        "entropy_ratio": pick(lambda r: ratio(r.get("entropy_seconds"), r.get("seconds"))),
        "speedup_ort": pick(lambda r: ratio(r.get("ort", {}).get("seconds"), r.get("seconds"))),
        "speedup_onnxsim": pick(lambda r: ratio(r.get("onnxsim", {}).get("seconds"), r.get("seconds"))),
    }


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
    versions = {"python": platform.python_version()}
    for package in ("numpy", "onnx", "onnxruntime", "onnxsim"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    def first_line(command):
        try:
            return (subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY).stdout.splitlines() or [""])[0]
        except OSError:
            return ""
    versions["infopt"] = first_line([str(infopt), "--version"]).removeprefix("infopt ")
    versions["commit"] = first_line(["git", "describe", "--always", "--dirty"])
    return {"cpu": cpu, "cores": os.cpu_count(), "vnni": any("vnni" in f for f in flags.split()),
            "date": datetime.date.today().isoformat(), "load_before": round(os.getloadavg()[0], 2), "versions": versions}


def fmt(value, spec=".2f", scale=1.0, suffix=""):
    return "-" if value is None else f"{value * scale:{spec}}{suffix}"


def span(values):
    return f"{min(values):.2f} to {max(values):.2f}"


def score_of(result):
    if "acc" in result:
        return fmt(result["acc"], ".1f", 100, " %")
    return fmt(result.get("ppl"), ".3f", 1, " ppl")


def markdown(report):
    lines, m = [], report["machine"]
    v = m["versions"]
    lines.append(f"{m['cpu']}, {m['cores']} cores, VNNI {'yes' if m['vnni'] else 'no'}; {m['date']}; load {m['load_before']} at the start; "
                 + ", ".join(f"{k} {x or 'none'}" for k, x in v.items()))
    lines += ["", "| model | float | infopt | drop | SQNR, dB | agreement | size | latency | float/float | infopt, s | entropy, s | ORT, s | onnxsim, s | "
              "vs ORT | vs onnxsim | peak, MB |", "|" + "---|" * 16]
    for r in report["models"]:
        if "error" in r:
            lines.append(f"| {r['model']} | {score_of(r['float'])} | failed: {r['error'].replace('|', '/')} |" + " |" * 13)
            continue
        x = r["infopt"]
        drop = fmt(x["drop"], "+.2f", 1, " pt") if "drop" in x else fmt(x.get("ppl_rise"), "+.2f", 100, " %")
        peers = [r.get(p, {}).get("seconds") for p in ("ort", "onnxsim")]
        lines.append("| " + " | ".join([
            r["model"], score_of(r["float"]), score_of(x), drop, fmt(x["sqnr_db"], ".1f"), fmt(x["agree"], ".1f", 100, " %"),
            fmt(x["size"], ".3f"), fmt(x["lat"], ".2f"), span(r["float"]["lat_all"]), fmt(r["seconds"]), fmt(r.get("entropy_seconds")),
            *(fmt(p) for p in peers), *(fmt(ratio(p, r["seconds"]), ".1f", 1, "x") for p in peers), fmt(r["peak_mb"], ".0f")]) + " |")
    g = report["means"]
    lines.append("| geometric mean | | | | | | " + " | ".join([
        fmt(g["size"], ".3f"), fmt(g["lat"], ".2f"), "", fmt(g["seconds"]), fmt(ratio(g["entropy_ratio"], 1), ".2f", 1, "x"), "", "",
        fmt(g["speedup_ort"], ".1f", 1, "x"), fmt(g["speedup_onnxsim"], ".1f", 1, "x")]) + " | |")
    lines += ["", "Drop is in points of accuracy, for lm the rise of perplexity. Size and latency are ratios to the float model; float/float is the same "
              "measurement of the float model against itself, its range over all runs: no latency ratio is known better than that.", ""]
    lines += [f"{r['model']}: {note}" for r in report["models"] for note in r["notes"]] + [""] * any(r["notes"] for r in report["models"])
    scored = [(r["model"], p, r[p]) for r in report["models"] for p in ("ort", "onnxsim") if "result" in r.get(p, {}) or "error" in r.get(p, {})]
    if scored:
        lines += ["| model | peer | score | SQNR, dB | agreement | MB | latency | s | peak, MB |", "|" + "---|" * 9]
        for name, peer, x in scored:
            y = x.get("result", {})
            if "error" in x:
                lines.append(f"| {name} | {peer} | {x['error'].replace('|', '/')} | | | | | {fmt(x.get('seconds'))} | {fmt(x.get('rss_mb'), '.0f', 1.048576)} |")
                continue
            lines.append(f"| {name} | {peer} | {score_of(y)} | {fmt(y['sqnr_db'], '.1f')} | {fmt(y['agree'], '.1f', 100, ' %')} | {fmt(y['mb'])} | "
                         f"{fmt(y['lat'])} | {fmt(x['seconds'])} | {fmt(x['rss_mb'], '.0f', 1.048576)} |")
        lines.append("")
    lines += ["| target | figure | bound | |", "|---|---|---|---|"]
    for t in report["targets"]:
        if t["what"].startswith("same bytes"):
            figure, bound = {None: "-", 0: "different", 1: "same"}[t["figure"]], "same"
        else:
            figure, bound = fmt(t["figure"], ".3f"), f"{t['relation']} {t['bound']:.6g}"
        met = {None: "not measured", True: "met", False: "**not met**"}[t["met"]]
        lines.append(f"| {t['subject']}: {t['what']} | {figure} | {bound} | {met} |")
    counts = [sum(t["met"] is x for t in report["targets"]) for x in (True, False, None)]
    lines += ["", f"{counts[0]} met, {counts[1]} not met, {counts[2]} not measured."]
    return "\n".join(lines)


def default_infopt():
    for place in ("build/release/tools/infopt", "build/release/infopt"):
        if (REPOSITORY / place).is_file():
            return REPOSITORY / place
    return REPOSITORY / "build/release/tools/infopt"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=pathlib.Path, required=True, help="folder of the models and their scripts")
    parser.add_argument("--infopt", type=pathlib.Path, default=default_infopt(), help="the binary (default: %(default)s)")
    parser.add_argument("--models", default=",".join(TARGETS), help="default: %(default)s")
    parser.add_argument("--peers", choices=("none", "ort", "onnxsim", "all"), default="all")
    parser.add_argument("--peer-scores", action="store_true", help="also evaluate the files that the peers write")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of infopt, whose median counts (default: 5)")
    parser.add_argument("--latencies", type=int, default=5, help="measurements of each latency ratio, whose median counts (default: 5)")
    parser.add_argument("--threads", type=int, help="passed on to infopt in the timed runs (default: its own)")
    parser.add_argument("--out", type=pathlib.Path, help="also write everything measured as JSON")
    parser.add_argument("--scratch", type=pathlib.Path, help="where the temporary folder goes (default: the system's)")
    parser.add_argument("--check", action="store_true", help="exit 1 unless every target is met")
    args = parser.parse_args()
    args.zoo, args.infopt = args.zoo.resolve(), args.infopt.resolve()
    names = [n for n in args.models.split(",") if n]
    if not names or args.repeats < 1 or args.latencies < 1:
        parser.error("--models names no model, or --repeats or --latencies is less than 1")
    for path in (args.infopt, args.zoo / "evaluate.py", *(args.zoo / n for n in names)):
        if not path.exists():
            parser.error(f"{path} does not exist")
    with tempfile.TemporaryDirectory(dir=args.scratch, prefix="infopt-bench-") as scratch:
        scratch = pathlib.Path(scratch)
        report = {"machine": machine(args.infopt), "samples": SAMPLES, "repeats": args.repeats}
        prepare_zoo(args.zoo, scratch / "zoo", names)
        bench = Bench(args, scratch)
        report["models"] = [bench.model(name) for name in names]
    report["means"] = means_of(report["models"])
    report["targets"] = judge(report["models"])
    print(markdown(report))
    if args.out:
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    if args.check and not all(t["met"] for t in report["targets"]):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
