"""Models, data and measures for test_quantize.py. The binary under test is $INFOPT."""

import json
import os
import pathlib
import subprocess

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLES = ("digits_cnn", "photo_patches", "text_language")
onnxruntime.set_default_logger_severity(3)


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(*shape, scale=1.0, seed=0):
    return (rng(seed).standard_normal(shape) * scale).astype(np.float32)


def build(text, opset=17, ir=8, domains="", **constants):
    """A model from ONNX's textual form of a graph, with initializers from arrays."""
    model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}{domains}]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
    return model


def infopt(*arguments, expect=0):
    done = subprocess.run([os.environ["INFOPT"], *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == expect, f"infopt {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}"
    return done


class Quantized:
    """What `infopt quantize` made of a model; checked by ONNX, and loaded in ONNX Runtime where `load` is true."""

    def __init__(self, folder, source, calib, *options, recipe=None, load=True):
        folder = pathlib.Path(folder)
        if isinstance(source, onnx.ModelProto):
            onnx.save(source, folder / "source.onnx")
            source = folder / "source.onnx"
        if isinstance(calib, dict):
            np.savez(folder / "calib.npz", **calib)
            calib = folder / "calib.npz"
        if recipe is not None:
            (folder / "recipe.yaml").write_text(recipe)
            options = (*options, "--recipe", folder / "recipe.yaml")
        self.source, self.path = source, folder / "out.onnx"
        self.report = json.loads(infopt("quantize", source, "--calib", calib, "-o", self.path, "--json", *options).stdout)
        self.bytes = self.path.read_bytes()
        self.model = onnx.load(self.path)
        self.nodes = self.model.graph.node
        self.constants = {t.name: t for t in self.model.graph.initializer}
        self.producer = {v: n for n in self.nodes for v in n.output}
        if load:
            onnx.checker.check_model(self.path, full_check=True)
            self.session = session(self.path)

    def array(self, name):
        return numpy_helper.to_array(self.constants[name])

    def of(self, *ops):
        return [n for n in self.nodes if n.op_type in ops]

    def form(self, node):
        return next(layer["form"] for layer in self.report["layers"] if layer["node"] == node)

    def weights_of(self, node):
        """The codes, scale and zero point behind a node's weights (DequantizeLinear form)."""
        dequantize = self.producer[node.input[1]]
        assert dequantize.op_type == "DequantizeLinear"
        return [self.array(v) for v in dequantize.input]

    def sqnr(self, feeds):
        return sqnr(outputs(self.source, feeds)[0], self.session.run(None, feeds)[0])


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def outputs(model, feeds):
    return session(model).run(None, feeds)


def sqnr(reference, actual):
    """Signal to noise in decibels."""
    reference, actual = np.asarray(reference, np.float64), np.asarray(actual, np.float64)
    return 10 * np.log10((reference**2).sum() / max(((reference - actual) ** 2).sum(), 1e-300))


def rename(model, new):
    """Every node and every value, of bodies too, under new(name)."""

    def graph(g):
        for node in g.node:
            node.name = new(node.name)
            node.input[:] = [new(v) for v in node.input]
            node.output[:] = [new(v) for v in node.output]
            for a in node.attribute:
                for body in [a.g] if a.type == onnx.AttributeProto.GRAPH else a.graphs:
                    graph(body)
        for named in (*g.input, *g.output, *g.value_info, *g.initializer):
            named.name = new(named.name)

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph(copy.graph)
    return copy


def without_names(model):
    """The model's bytes with values numbered in the order in which they are met, and initializers in that order."""
    numbers = {"": ""}

    def number(name):
        return numbers.setdefault(name, f"{len(numbers):06}")

    g = model.graph
    for name in [v.name for v in g.input] + [v for n in g.node for v in (*n.input, *n.output)]:
        number(name)
    copy = rename(model, number)
    for node in copy.graph.node:
        node.name = ""
    for ordered in (copy.graph.initializer, copy.graph.value_info):
        kept = sorted(ordered, key=lambda v: v.name)
        del ordered[:]
        ordered.extend(kept)
    return copy.SerializeToString(deterministic=True)


class Sample:
    """One of sample_models/ with its data."""

    def __init__(self, name):
        folder = ROOT / "sample_models" / name
        self.name, self.model, self.calib = name, folder / "model.onnx", folder / "calib.npz"
        self.feeds = dict(np.load(folder / "eval.npz"))
        self.label = self.feeds.pop("label")
        self.logits = outputs(self.model, self.feeds)[0]

    def top1(self, logits):
        return float((logits.argmax(1) == self.label).mean())
