#!/usr/bin/env python3
"""infopt's CUDA runtime on a GPU: whole models beside PyTorch, single kernels beside what the card can do. benchmarks/gpu.sh calls it.

Every figure is the median of rounds in which all subjects take turns. infopt's is the time of a recorded run on the device (CUDA events),
PyTorch's that of a call between two events; neither counts copies to the device and back.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Dense figures of the data sheets: integer operations and bytes a second.
CARDS = {"H200": (1979e12, 4.8e12), "H100": (1979e12, 3.35e12), "A100": (624e12, 2.0e12)}
CASES = [("resnet50", 32), ("bert_base", 32)]


class Bench:
    def __init__(self, infopt, folder):
        self.infopt, self.folder = infopt, pathlib.Path(folder)

    def run(self, *args):
        done = subprocess.run([self.infopt, *map(str, args)], capture_output=True, text=True, timeout=200)
        if done.returncode:
            raise RuntimeError(f"infopt {args[0]} {args[1]}: exit {done.returncode}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def measure(self, model, batches, data=None, seconds=0.3, sparse="auto"):
        """The report of `infopt bench`, a dict."""
        given = ["--input", data] if data else []
        return json.loads(self.run("bench", model, "--device", "cuda", "--sparse", sparse, "--batch", ",".join(map(str, batches)), "--seconds", seconds, "--json", *given))

    def device_ms(self, model, batch, data=None, sparse="auto"):
        figures = self.measure(model, [batch], data, sparse=sparse)["batches"][0]
        if "device_median_ms" not in figures:
            raise RuntimeError("the run was not recorded: something in it ran on the CPU")
        return figures["device_median_ms"]

    def kernels(self, model, batch, data):
        """What the plan says of its steps after runs of so many rows."""
        report = json.loads(self.run("bench", model, "--device", "cuda", "--batch", batch, "--runs", 10, "--profile", "--json", "--input", data))
        return [node["kernel"] for node in report["profile"]["nodes"] if "kernel" in node]

    def steps_on_the_cpu(self, model):
        plan = json.loads(self.run("inspect", model, "--plan", "--json", "--device", "cuda"))
        return [f"{s['operators']}: {s.get('refused', '')}" for s in plan["steps"] if s["place"] == "cpu"]


def torch_models(torch):
    """name -> (module, example inputs of a batch, ONNX input names). The weights are random: speed doesn't depend on them."""
    import torchvision
    import transformers
    torch.manual_seed(0)
    resnet = torchvision.models.resnet50(weights=None).eval()

    class Bert(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = transformers.BertModel(transformers.BertConfig(attn_implementation="eager"), add_pooling_layer=False)

        def forward(self, ids, mask):
            return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state

    return {
        "resnet50": (resnet, lambda b: (torch.randn(b, 3, 224, 224),), ["x"]),
        "bert_base": (Bert().eval(), lambda b: (torch.randint(0, 30000, (b, 128)), torch.ones(b, 128, dtype=torch.int64)), ["ids", "mask"]),
    }


def export(torch, bench, name, module, example, names):
    path = bench.folder / f"{name}.onnx"
    torch.onnx.export(module, example(2), str(path), input_names=names, output_names=["y"], opset_version=17, dynamo=False,
                      dynamic_axes={n: {0: "N"} for n in names + ["y"]})
    data = bench.folder / f"{name}.npz"
    np.savez(data, **{n: t.numpy() for n, t in zip(names, example(32))})
    return path, data


def quantized(bench, model, data):
    out = model.with_suffix(".int8.onnx")
    # Random weights say nothing of accuracy: every layer is to be integer.
    bench.run("quantize", model, "--calib", data, "--samples", 8, "--target", "tensorrt", "-o", out, "--set", "steps.quantize_int8.min_sqnr_db=-1000", "--set", "steps.quantize_int8.min_layer_sqnr_db=-1000")
    return out


def halved(bench, model):
    out = model.with_suffix(".fp16.onnx")
    bench.run("optimize", model, "--recipe", "fp16", "-o", out)
    return out


def torch_timer(torch, call):
    """Milliseconds of one call, of ten between two events."""
    def measure():
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(10):
            call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 10
    return measure


def whole_model(torch, bench, name, batch, deadline):
    import copy
    module, example, names = torch_models(torch)[name]
    path, data = export(torch, bench, name, module, example, names)
    files = {"infopt_fp32": path, "infopt_fp16": halved(bench, path), "infopt_int8": quantized(bench, path, data)}
    result = {"batch": batch, "cpu_steps": {n: bench.steps_on_the_cpu(f) for n, f in files.items()}, "milliseconds": {}}
    inputs = [t.cuda() for t in example(batch)]
    timers = {}
    for kind, dtype in (("eager_fp32", torch.float32), ("compiled_fp16", torch.float16)):
        own = copy.deepcopy(module).cuda().to(dtype)
        args = [t.to(dtype) if t.is_floating_point() else t for t in inputs]
        model = torch.compile(own, mode="reduce-overhead") if kind == "compiled_fp16" else own

        def call(model=model, args=args):
            with torch.inference_mode():
                model(*args)
        for _ in range(5):
            call()
        torch.cuda.synchronize()
        timers[kind] = torch_timer(torch, call)
    times = {n: [] for n in [*timers, *files]}
    for _ in range(5):
        for n, timer in timers.items():
            times[n].append(timer())
        for n, f in files.items():
            if not result["cpu_steps"][n]:
                times[n].append(bench.device_ms(f, batch, data))
        if time.time() > deadline:
            break
    result["milliseconds"] = {n: statistics.median(t) if t else None for n, t in times.items()}
    ms = result["milliseconds"]
    if ms["infopt_int8"]:
        result["int8_over_eager_fp32"] = ms["eager_fp32"] / ms["infopt_int8"]
        result["int8_over_compiled_fp16"] = ms["compiled_fp16"] / ms["infopt_int8"]
    return result


def model_of(nodes, inputs, outputs, weights, opset=21):
    info = lambda v: helper.make_tensor_value_info(v[0], v[2] if len(v) > 2 else TensorProto.FLOAT, v[1])
    graph = helper.make_graph(nodes, "g", [info(v) for v in inputs], [info(v) for v in outputs], [numpy_helper.from_array(a, n) for n, a in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def int8_product(size):
    """codes -> product -> codes, so that nothing but the product is timed."""
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("DequantizeLinear", ["x", "s", "z"], ["xf"]), helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=1),
             helper.make_node("MatMul", ["xf", "wf"], ["yf"]), helper.make_node("QuantizeLinear", ["yf", "s2", "z"], ["y"])]
    weights = {"s": np.float32(0.02), "z": np.int8(0), "s2": np.float32(2.0), "w": rng.integers(-127, 128, (size, size)).astype(np.int8),
               "ws": np.full(size, 0.01, np.float32), "wz": np.zeros(size, np.int8)}
    return model_of(nodes, [("x", ["N", size], TensorProto.INT8)], [("y", ["N", size], TensorProto.INT8)], weights), {"x": rng.integers(-127, 128, (size, size)).astype(np.int8)}


def int4_product(k, n, block=128):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, k * n // 2).astype(np.uint8)
    tensor = helper.make_tensor("w", TensorProto.INT4, [k, n], codes.tobytes(), raw=True)
    nodes = [helper.make_node("DequantizeLinear", ["w", "ws"], ["wf"], axis=0, block_size=block), helper.make_node("MatMul", ["x", "wf"], ["y"])]
    model = model_of(nodes, [("x", ["N", k], TensorProto.FLOAT16)], [("y", ["N", n], TensorProto.FLOAT16)], {"ws": np.full((k // block, n), 0.01, np.float16)})
    model.graph.initializer.append(tensor)
    return model, {"x": rng.standard_normal((16, k)).astype(np.float16)}


def two_of_four(rng, size):
    """A mask for [size, size] weights: two of each four neighbours of the first axis, which products sum over."""
    return (rng.random((size // 4, 4, size)).argsort(axis=1).argsort(axis=1) < 2).reshape(size, size)


def in_blocks(rng, size, zeros):
    return np.repeat(rng.random((size, size // 16)) >= zeros, 16, axis=1)


def sparse_float_product(size, dtype, mask):
    weights = (np.random.default_rng(1).standard_normal((size, size)) * mask).astype(dtype)
    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", ["N", size], kind)], [("y", ["N", size], kind)], {"w": weights})
    return model, {"x": np.random.default_rng(0).standard_normal((size, size)).astype(dtype)}


def sparse_int8_product(size, mask):
    model, data = int8_product(size)
    for tensor in model.graph.initializer:
        if tensor.name == "w":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * mask.astype(np.int8), "w"))
    return model, data


def sparse_products(bench, size=4096):
    """Weights with zeros 2:4 and in blocks: the time of the dense product over that without the zeros, and what the plan chose by itself."""
    rng = np.random.default_rng(2)
    cases = {"2:4 float16": sparse_float_product(size, np.float16, two_of_four(rng, size)), "2:4 int8": sparse_int8_product(size, two_of_four(rng, size))}
    for zeros in (0.7, 0.9):
        mask = in_blocks(rng, size, zeros)
        for dtype in (np.float32, np.float16):
            cases[f"blocks {zeros:.0%} {np.dtype(dtype).name}"] = sparse_float_product(size, dtype, mask)
    out = {"size": size}
    for name, (model, data) in cases.items():
        path = bench.folder / "sparse.onnx"
        onnx.save(model, path)
        np.savez(path.with_suffix(".npz"), **data)
        for rows in (16, size):
            ms = {use: bench.device_ms(path, rows, path.with_suffix(".npz"), use) for use in ("never", "always", "auto")}
            out[f"{name}, {rows} rows"] = {"milliseconds": ms, "ratio": ms["never"] / ms["always"], "chosen": bench.kernels(path, rows, path.with_suffix(".npz"))}
    return out


def elementwise(count):
    nodes = [helper.make_node("Mul", ["x", "a"], ["t"]), helper.make_node("Add", ["t", "b"], ["u"]), helper.make_node("Sigmoid", ["u"], ["v"]), helper.make_node("Mul", ["v", "x"], ["y"])]
    return model_of(nodes, [("x", ["N", count])], [("y", ["N", count])], {"a": np.float32(1.5), "b": np.float32(0.5)}), {"x": np.random.default_rng(0).standard_normal((1, count)).astype(np.float32)}


def kernels(bench, card):
    """Shares of what the data sheet says; None where the card isn't in the table."""
    operations, bandwidth = next((c for name, c in CARDS.items() if name in card), (None, None))
    share = lambda figure, peak: figure / peak if peak else None

    def time_of(name, model, data, batch):
        path = bench.folder / f"{name}.onnx"
        onnx.save(model, path)
        np.savez(path.with_suffix(".npz"), **data)
        return bench.device_ms(path, batch, path.with_suffix(".npz")) / 1e3

    out = {}
    size = 8192
    seconds = time_of("int8_product", *int8_product(size), size)
    out["int8_product"] = {"size": size, "tera_operations": 2 * size**3 / seconds / 1e12, "share_of_peak": share(2 * size**3 / seconds, operations)}
    k, n = 8192, 28672
    model, data = int4_product(k, n)
    for batch in (1, 4, 8, 16):
        seconds = time_of(f"int4_product_{batch}", model, data, batch)
        moved = k * n / 2 + k // 128 * n * 2 + batch * (k + n) * 2
        out[f"int4_product_{batch}"] = {"k": k, "n": n, "gigabytes_a_second": moved / seconds / 1e9, "share_of_bandwidth": share(moved / seconds, bandwidth)}
    count = 1 << 26
    seconds = time_of("elementwise", *elementwise(count), 1)
    out["elementwise"] = {"elements": count, "gigabytes_a_second": 8 * count / seconds / 1e9, "share_of_bandwidth": share(8 * count / seconds, bandwidth)}
    return out


def statistics_overhead(torch, bench, samples=1000):
    """Calibration of ResNet-50 on the device beside `infopt run` over the same images: seconds of the whole commands, reading included.

    An upper bound of what statistics cost: calibration also runs layers one by one that `run` fuses, and a first sample to learn shapes.
    """
    module, example, names = torch_models(torch)["resnet50"]
    path, _ = export(torch, bench, "statistics", module, example, names)
    data = bench.folder / "images.npz"
    np.savez(data, x=np.random.default_rng(0).standard_normal((samples, 3, 224, 224), dtype=np.float32))
    commands = {"forward": ["run", path, "--input", data, "-o", bench.folder / "out.npz"], "calibration": ["calibrate", path, "--calib", data, "-o", bench.folder / "out.statistics", "--threads", 1]}
    times = {name: [] for name in commands}
    for _ in range(2):
        for name, command in commands.items():
            start = time.perf_counter()
            bench.run(*command, "--device", "cuda")
            times[name].append(time.perf_counter() - start)
    seconds = {name: min(t) for name, t in times.items()}
    return {"images": samples, "seconds": seconds, "overhead": seconds["calibration"] / seconds["forward"] - 1}


def attempt(results, name, call):
    start = time.time()
    try:
        results[name] = call()
    except Exception as e:  # noqa: BLE001: one failure must not cost the other figures
        results[name] = {"failed": f"{type(e).__name__}: {e}"}
    results.setdefault("seconds", {})[name] = round(time.time() - start, 1)
    print(name, json.dumps(results[name]), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--infopt", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tests", help="gtest's JSON of test_gpu")
    parser.add_argument("--sanitizer", help="a file with compute-sanitizer's verdict")
    parser.add_argument("--seconds", type=float, default=300)
    args = parser.parse_args()
    deadline = time.time() + args.seconds
    results = {}
    smi = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.max.sm,memory.used,utilization.gpu", "--format=csv,noheader"], capture_output=True, text=True)
    results["card"] = smi.stdout.strip()
    results["date"] = time.strftime("%Y-%m-%d")
    if args.tests and pathlib.Path(args.tests).exists():
        tests = json.loads(pathlib.Path(args.tests).read_text())
        results["tests"] = {k: tests[k] for k in ("tests", "failures", "disabled", "errors")}
    if args.sanitizer:
        results["sanitizer"] = pathlib.Path(args.sanitizer).read_text().strip()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.infopt, folder)
        attempt(results, "kernels", lambda: kernels(bench, results["card"]))
        attempt(results, "sparse_products", lambda: sparse_products(bench))
        try:
            import torch
            results["torch"] = torch.__version__
        except ImportError:
            torch = None
            results["torch"] = None
        for name, batch in CASES:
            if torch and time.time() < deadline:
                attempt(results, name, lambda: whole_model(torch, bench, name, batch, deadline))
        if torch and time.time() < deadline:
            attempt(results, "calibration", lambda: statistics_overhead(torch, bench))
    pathlib.Path(args.out).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
