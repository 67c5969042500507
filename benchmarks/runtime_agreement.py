#!/usr/bin/env python3
"""Does infopt's runtime compute each operator of a quantized file as ONNX Runtime does, on the same inputs?

    python benchmarks/runtime_agreement.py OUT.onnx --input X.npz [--samples 2] [--float FLOAT.onnx]

ONNX Runtime, without any optimization of its own, gives every intermediate value of the file. Then each unit is run alone in infopt,
as a model of its own, on exactly these inputs: an operator with the DequantizeLinear before it, the Relu or Clip behind it, and the
QuantizeLinear behind that, which is what infopt runs as one integer step; or a single node, where it stands alone. What is the same in
every run (decoded weights) is given as a constant. Printed for each kind of unit: how many, how many 8-bit elements differ and by how
many steps at most, and the largest difference of other outputs relative to the largest magnitude. With --float the whole net follows:
infopt to ONNX Runtime and the file to the float model, in decibels.
Exits 1 where an 8-bit output differs by more than a step, an integer output at all, or a floating one by more than --tolerance.
"""

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from agreement import in_infopt, in_ort, sqnr

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
ABSORBED = ("Relu", "Clip")


class Net:
    """The file's graph, and every value in it for each sample."""

    def __init__(self, path, samples):
        self.model = onnx.load(path)
        graph = self.model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.producer = {v: n for n in graph.node for v in n.output if v}
        self.place = {v: i for i, n in enumerate(graph.node) for v in n.output}
        self.readers = {}
        for n in graph.node:
            for v in n.input:
                self.readers.setdefault(v, []).append(n)
        self.outputs = {o.name for o in graph.output}
        self.fixed = set(self.constants)
        for n in graph.node:
            if all(v in self.fixed or not v for v in n.input) and not any(a.HasField("g") for a in n.attribute):
                self.fixed.update(n.output)
        self.values = self.run(samples)

    def run(self, samples):
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        known = {o.name for o in model.graph.output}
        names = [v for n in model.graph.node for v in n.output if v]
        model.graph.output.extend(onnx.ValueInfoProto(name=v) for v in names if v not in known)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        order = [o.name for o in session.get_outputs()]
        needed = {i.name for i in session.get_inputs()}
        feeds = [{k: v for k, v in s.items() if k in needed} for s in samples]
        return [{**s, **dict(zip(order, session.run(order, s)))} for s in feeds]

    def sole_reader(self, value):
        readers = self.readers.get(value, [])
        return readers[0] if len(readers) == 1 and value not in self.outputs else None

    def units(self):
        """Lists of nodes: every node that isn't the same in every run is in one, DequantizeLinear nodes in that of each reader."""
        taken = set()
        for n in self.model.graph.node:
            if id(n) in taken or all(v in self.fixed for v in n.output):
                continue
            if n.op_type == "DequantizeLinear" and self.readers.get(n.output[0]) and n.output[0] not in self.outputs:
                continue  # with its readers
            nodes = [n]
            if n.op_type != "QuantizeLinear":
                nodes = [p for p in dict.fromkeys(map(self.index, n.input)) if p is not None]
                nodes = [self.model.graph.node[i] for i in nodes] + [n]
                last = n
                while (next_ := self.sole_reader(last.output[0])) is not None and last.op_type != "QuantizeLinear":
                    if next_.op_type not in (*ABSORBED, "QuantizeLinear") or next_.input[0] != last.output[0]:
                        break
                    if next_.op_type in ABSORBED and (n.op_type in ABSORBED or len(nodes) == 1):
                        break  # a Relu by itself, or behind what has no integers before it
                    nodes.append(next_)
                    last = next_
            taken.update(map(id, nodes))
            yield nodes

    def index(self, value):
        """The place of the DequantizeLinear that makes an 8-bit (or bias) value's reading; None for anything else."""
        n = self.producer.get(value)
        return self.place[value] if n is not None and n.op_type == "DequantizeLinear" else None

    def unit_model(self, nodes):
        """(model, names of its inputs, names of its outputs), or None where it has a body that reads the graph around it."""
        if any(a.HasField("g") or a.graphs for n in nodes for a in n.attribute):
            return None
        made = {v for n in nodes for v in n.output if v}
        read = [v for v in dict.fromkeys(v for n in nodes for v in n.input if v) if v not in made]
        inputs = [v for v in read if v not in self.fixed]
        inside = {v for n in nodes for v in n.input}
        outputs = [v for n in nodes for v in n.output if v and (v not in inside or v in self.outputs) and n.op_type != "DequantizeLinear"] or list(nodes[-1].output)
        sample = self.values[0]
        constant = [numpy_helper.from_array(np.asarray(self.constants.get(v, sample.get(v))), v) for v in read if v in self.fixed]

        def info(v):
            a = sample[v]
            return helper.make_tensor_value_info(v, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)

        graph = helper.make_graph(nodes, "unit", [info(v) for v in inputs], [info(v) for v in outputs], constant)
        return helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version), inputs, outputs


def run_unit(infopt, net, nodes, folder):
    """A unit's outputs in infopt, each joined over the samples and flat; None where it can't stand alone."""
    unit = net.unit_model(nodes)
    if unit is None or not unit[1]:
        return None
    model, inputs, outputs = unit
    onnx.save(model, folder / "unit.onnx")
    for k, sample in enumerate(net.values):
        (folder / "data" / f"test_data_set_{k}").mkdir(parents=True)
        for i, v in enumerate(inputs):
            (folder / "data" / f"test_data_set_{k}" / f"input_{i}.pb").write_bytes(numpy_helper.from_array(np.asarray(sample[v]), v).SerializeToString())
    done = subprocess.run([infopt, "run", folder / "unit.onnx", "--input", folder / "data", "-o", folder / "y.npz"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:300])
    found = dict(np.load(folder / "y.npz"))
    return {v: (found[v].ravel(), np.concatenate([np.ravel(s[v]) for s in net.values])) for v in outputs}


class Row:
    def __init__(self):
        self.units = self.elements = self.differ = self.steps = self.integers = 0
        self.relative = 0.0
        self.where = ""

    def add(self, own, ort, where):
        if own.dtype != ort.dtype or own.shape != ort.shape:
            raise RuntimeError(f"{own.dtype}{own.shape} and {ort.dtype}{ort.shape}")
        if ort.dtype in (np.uint8, np.int8):
            apart = np.abs(own.astype(np.int32) - ort)
            self.elements += apart.size
            self.differ += int((apart > 0).sum())
            worst = int(apart.max(initial=0))
            if worst > self.steps:
                self.steps, self.where = worst, where
        elif ort.dtype.kind == "f":
            same = (own == ort) | (np.isnan(own) & np.isnan(ort))
            apart = np.where(same, 0, np.abs(own.astype(np.float64) - ort)).max(initial=0)
            relative = float(apart / max(np.abs(np.where(np.isfinite(ort), ort, 0)).max(initial=0), 1e-30)) if apart else 0.0
            if relative > self.relative:
                self.relative, self.where = relative, where
        else:
            self.integers += int((own != ort).sum())


def whole_net(args, batches, needed):
    levels = onnxruntime.GraphOptimizationLevel
    truth = in_ort(args.float, batches, levels.ORT_ENABLE_ALL)
    ort = in_ort(args.quantized, batches, levels.ORT_ENABLE_ALL)
    literal = in_ort(args.quantized, batches, levels.ORT_DISABLE_ALL)
    with tempfile.TemporaryDirectory(prefix="infopt-agreement-") as folder:
        own = in_infopt(args.infopt, args.quantized, batches, needed, pathlib.Path(folder))
    truth = dict(zip(ort, truth.values())) if set(truth) != set(ort) else truth
    print(f"\nwhole net, {len(batches)} samples: infopt to ONNX Runtime {sqnr(ort, own):.1f} dB, to ONNX Runtime without optimizations {sqnr(literal, own):.1f} dB; "
          f"ONNX Runtime to itself {sqnr(literal, ort):.1f} dB; the file to the float model {sqnr(truth, ort):.1f} dB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quantized", type=pathlib.Path)
    parser.add_argument("--input", type=pathlib.Path, required=True, help="npz of inputs by name; `label` is ignored")
    parser.add_argument("--float", type=pathlib.Path)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--infopt", type=pathlib.Path, default=REPOSITORY / "build/release/tools/infopt")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    data = {k: v for k, v in np.load(args.input).items() if k != "label"}
    samples = [{k: v[i : i + 1] for k, v in data.items()} for i in range(min(args.samples, *(len(v) for v in data.values())))]
    net = Net(args.quantized, samples)
    units = list(net.units())
    rows, skipped, good = {}, 0, True
    with tempfile.TemporaryDirectory(prefix="infopt-units-") as scratch, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:

        def attempt(k):
            folder = pathlib.Path(scratch) / str(k)
            folder.mkdir()
            try:
                return run_unit(args.infopt, net, units[k], folder)
            except RuntimeError as e:
                return e

        for nodes, result in zip(units, pool.map(attempt, range(len(units)))):
            body = [n.op_type for n in nodes if n.op_type not in ("DequantizeLinear", "QuantizeLinear")] or [nodes[0].op_type]
            integers = any(n.op_type == "DequantizeLinear" for n in nodes) and nodes[0] is not nodes[-1]
            where = nodes[-1].output[0]
            if result is None:
                skipped += 1
                continue
            row = rows.setdefault(("DequantizeLinear → " if integers else "") + " → ".join(body) + (" → QuantizeLinear" if len(nodes) > 1 and nodes[-1].op_type == "QuantizeLinear" else ""), Row())
            row.units += 1
            if isinstance(result, RuntimeError):
                print(f"{where}: {result}", file=sys.stderr)
                good = False
                continue
            for own, ort in result.values():
                row.add(own, ort, where)
    print("| unit | count | 8-bit elements | that differ | by steps, at most | other integers that differ | floats: largest difference | worst at |\n|---|---|---|---|---|---|---|---|")
    for name, r in sorted(rows.items()):
        print(f"| {name} | {r.units} | {r.elements} | {r.differ} | {r.steps if r.elements else '-'} | {r.integers} | {r.relative:.1e} | {r.where} |")
        good &= r.steps <= 1 and r.integers == 0 and r.relative <= args.tolerance
    print(f"\n{args.quantized.name}: {len(units) - skipped} units on {len(samples)} samples" + (f", {skipped} left out (bodies, no inputs)" if skipped else "") + f": {'within one step' if good else 'NOT WITHIN'}")
    if args.float:
        whole_net(args, samples, {i.name for i in net.model.graph.input})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
