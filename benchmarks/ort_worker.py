"""ONNX Runtime's side of runtime_vs_ort.py: a process with one session, told over stdin what to measure.

    python ort_worker.py MODEL DATA.npz --threads N             a line {"batch": 8, "warmup": 2, "runs": 30} in, a line of figures out
    python ort_worker.py MODEL DATA.npz --threads N --start B   loads, runs B rows, prints one line of figures, ends

Every line is JSON. A failure is {"error": text}.
"""

import argparse
import json
import signal
import statistics
import sys
import time

import numpy as np


def status_bytes(key):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return None


def reset_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def rows(path, names, batch):
    """The first rows of each array; the last one is repeated where there are fewer."""
    with np.load(path) as arrays:
        feeds = {}
        for name in names if names is not None else arrays.files:
            array = arrays[name]
            feeds[name] = np.ascontiguousarray(array[np.minimum(np.arange(batch), len(array) - 1)])
    return feeds


def make_session(model, threads):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def fixed_batch(session):
    firsts = [i.shape[0] for i in session.get_inputs() if i.shape]
    return firsts[0] if firsts and all(isinstance(f, int) and f > 0 for f in firsts) else 0


def measure(session, feeds, warmup, runs):
    for _ in range(warmup):
        session.run(None, feeds)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(1e3 * (time.perf_counter() - start))
    return {"median_ms": statistics.median(times), "min_ms": min(times), "runs": runs}


def start(args):
    """Imports don't count in the times; in memory, Python, numpy and the inputs don't, ONNX Runtime's own library does."""
    feeds = rows(args.data, None, args.start)
    reset_peak()
    baseline = status_bytes("VmRSS")
    import onnxruntime
    onnxruntime.get_device()
    begin = time.perf_counter()
    session = make_session(args.model, args.threads)
    loaded = time.perf_counter()
    feeds = {i.name: feeds[i.name] for i in session.get_inputs()}
    ready = time.perf_counter()
    session.run(None, feeds)
    first = time.perf_counter() - ready
    for _ in range(args.runs):
        session.run(None, feeds)
    return {"load_ms": 1e3 * (loaded - begin), "first_run_ms": 1e3 * first, "peak_bytes": status_bytes("VmHWM") - baseline,
            "baseline_bytes": baseline}


def serve(args):
    session = make_session(args.model, args.threads)
    names = [i.name for i in session.get_inputs()]
    say({"fixed_batch": fixed_batch(session)})
    kept = {}
    for line in sys.stdin:
        ask = json.loads(line)
        if ask["batch"] not in kept:
            kept = {ask["batch"]: rows(args.data, names, ask["batch"])}
        say(measure(session, kept[ask["batch"]], ask["warmup"], ask["runs"]))


def say(figures):
    print(json.dumps(figures), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=int, metavar="B")
    parser.add_argument("--runs", type=int, default=5, help="further runs, whose memory counts too")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends this process by closing its input
    try:
        say(start(args)) if args.start else serve(args)
    except Exception as error:  # whatever it is, the driver must hear of it
        say({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})


if __name__ == "__main__":
    main()
