"""8-bit floats: what is written, and that infopt and ONNX Runtime read it alike. And ranges at run time, the recipe `dynamic`."""

import numpy as np
import onnx
import onnxruntime
import pytest
from quantize_support import Quantized, build, infopt, normal

NET = """g (float[N,8,12,12] x) => (float[N,10] y) {
  a = Conv<pads=[1,1,1,1]>(x, c1)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  m = MatMul(f, w1)
  h = Relu(m)
  y = Gemm<transB=1>(h, w2, b2)
}"""
STEPS = "version: 1\nsteps:\n  - remove_dead\n  - quantize_float8: {%s}\n  - remove_dead\n"


def model():
    w = {"c1": normal(32, 8, 3, 3, scale=0.1, seed=1), "w1": normal(32, 64, scale=0.1, seed=2), "w2": normal(10, 64, scale=0.1, seed=3), "b2": normal(10, seed=4)}
    return build(NET, **w)


def outputs(folder, path, x):
    np.savez(folder / "in.npz", **x)
    infopt("run", path, "--input", folder / "in.npz", "-o", folder / "out.npz")
    ort = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.load(folder / "out.npz")["y"], ort.run(None, x)[0]


@pytest.mark.parametrize("type_,onnx_type", [("float8e4m3fn", onnx.TensorProto.FLOAT8E4M3FN), ("float8e5m2", onnx.TensorProto.FLOAT8E5M2)])
@pytest.mark.parametrize("activations,form", [("static", "float8"), ("none", "weights only")])
def test_the_file_is_standard_and_both_runtimes_agree(tmp_path, type_, onnx_type, activations, form):
    data = {"x": normal(8, 8, 12, 12, seed=5)}
    q = Quantized(tmp_path, model(), data, recipe=STEPS % f"type: {type_}, activations: {activations}")
    assert q.model.opset_import[0].version == 19
    assert [layer["form"] for layer in q.report["layers"]] == [form] * 3
    assert sum(t.data_type == onnx_type and len(t.dims) > 1 for t in q.constants.values()) == 3
    assert sum(n.op_type == "QuantizeLinear" for n in q.nodes) == (3 if activations == "static" else 0)
    ours, theirs = outputs(tmp_path, q.path, data)
    # A code may go the other way where the sums before it round otherwise.
    assert np.abs(ours - theirs).max() < (1e-2 if activations == "static" else 1e-5) * np.abs(theirs).max()
    original = onnxruntime.InferenceSession(str(q.source)).run(None, data)[0]
    noise = np.sum((ours - original) ** 2) / np.sum(original**2)
    assert noise < (1e-2 if type_ == "float8e5m2" else 2.5e-3)


def test_the_recipe_fp8_and_its_file_validate(tmp_path):
    q = Quantized(tmp_path, model(), {"x": normal(8, 8, 12, 12, seed=5)}, "--recipe", "fp8")
    assert {layer["form"] for layer in q.report["layers"]} == {"float8"}
    infopt("validate", q.source, q.path, "--data", tmp_path / "calib.npz")


def test_the_recipe_dynamic_takes_ranges_at_run_time(tmp_path):
    q = Quantized(tmp_path, model(), {"x": normal(8, 8, 12, 12, seed=5)}, "--recipe", "dynamic")
    ops = [n.op_type for n in q.nodes]
    assert ops.count("MatMulInteger") == 2 and "DynamicQuantizeLinear" in ops and "QuantizeLinear" not in ops
