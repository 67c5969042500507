"""Helpers of the Python tests: the binary, the sample models, and small models made on the spot."""
import os
import pathlib
import re
import subprocess

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
INFOPT = os.environ.get("INFOPT", str(ROOT / "build" / "release" / "tools" / "infopt"))
EMULATED = os.environ.get("INFOPT_EMULATED", str(ROOT / "build" / "release" / "tools" / "infopt_emulated"))
DIGITS = ROOT / "sample_models" / "digits_cnn"

OK, USAGE, MALFORMED, UNSUPPORTED, ESCAPE, LIMIT, IO, GATE = 0, 2, 3, 4, 5, 6, 7, 8


def infopt(*args, **options):
    """Runs the binary to its end; stdout and stderr are text."""
    return subprocess.run([INFOPT, *map(str, args)], capture_output=True, text=True, timeout=120, **options)


def expect(code, *args, **options):
    """Runs the binary and expects an exit code; an error must be told in one line on stderr."""
    done = infopt(*args, **options)
    assert done.returncode == code, f"exit {done.returncode}, {code} expected\n{done.stdout}\n{done.stderr}"
    if code not in (OK, GATE):
        told = [line for line in done.stderr.splitlines() if not is_progress(line)]
        assert len(told) == 1, done.stderr
    return done


def is_progress(line):
    """A line that only says how far a stage is."""
    return re.fullmatch(r"infopt: .*: \d+ [a-z' ]+ in [\d.]+ s", line) is not None


def model_of(nodes, inputs, outputs, initializers=(), opset=17, ir_version=8):
    """A checked ModelProto; inputs and outputs are (name, shape) or (name, shape, element type)."""
    def infos(values):
        return [helper.make_tensor_value_info(v[0], v[2] if len(v) > 2 else TensorProto.FLOAT, v[1]) for v in values]
    weights = [numpy_helper.from_array(array, name) for name, array in dict(initializers).items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def two_layers(seed=0):
    """x[N,64] -> Gemm -> Relu -> Gemm -> y[N,10], with seeded weights."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((64, 96)).astype(np.float32) / 8,
        "b1": rng.standard_normal(96).astype(np.float32) / 8,
        "w2": rng.standard_normal((96, 10)).astype(np.float32) / 8,
        "b2": rng.standard_normal(10).astype(np.float32) / 8,
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "middle"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], "second"),
    ]
    return model_of(nodes, [("x", ["N", 64])], [("y", ["N", 10])], weights)


def batch(samples=16, seed=1):
    return np.random.default_rng(seed).standard_normal((samples, 64)).astype(np.float32)


class Folder:
    """A test's folder with a small model and its data in it."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.model = self.path / "model.onnx"
        self.calib = self.path / "calib.npz"
        self.out = self.path / "out.onnx"
        onnx.save(two_layers(), self.model)
        np.savez(self.calib, x=batch())

    def __truediv__(self, name):
        return self.path / name

    def files(self):
        return sorted(p.name for p in self.path.iterdir())

    def write(self, name, content):
        path = self.path / name
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
        return path

    def save(self, model, name="other.onnx"):
        onnx.save(model, self.path / name)
        return self.path / name

    def npz(self, name, **arrays):
        np.savez(self.path / name, **arrays)
        return self.path / name

    def quantize(self, code, *more, model=None, calib=None):
        return expect(code, "quantize", model or self.model, "--calib", calib or self.calib, "-o", self.out, *more)
