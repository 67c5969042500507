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


@pytest.mark.parametrize("recipe", ["fp8", "int4-gptq"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_table_that_the_head_reads_transposed_is_stored_in_few_bits_or_once(tmp_path, recipe, kept):
    text = "g (int64[N,6] i) => (float[N,6,400] y) { e = Gather(t, i) h = MatMul(e, w1) r = Relu(h) k = MatMul(r, w2) s = Transpose<perm=[1,0]>(t) y = MatMul(k, s) }"
    net = build(text, t=normal(400, 96, seed=1), w1=normal(96, 96, scale=0.1, seed=2), w2=normal(96, 96, scale=0.1, seed=3))
    ids = np.random.default_rng(4).integers(0, 400, (32, 6))
    options = ["--recipe", recipe]
    if kept:  # the table and what reads it in float
        step = {"fp8": "quantize_float8", "int4-gptq": "quantize_weights"}[recipe]
        rules = "[{name: tied, ops: [Gather], weights: float32}, {name: head, roles: [head], weights: float32}]"
        (tmp_path / "r.yaml").write_text(f"version: 1\nsteps:\n  - fold_constants\n  - {step}:\n      embeddings: float\n  - remove_dead\ngroups: {rules}\n")
        options = ["--recipe", tmp_path / "r.yaml"]
    q = Quantized(tmp_path, net, {"i": ids}, *options)
    bytes_of = {kind: sum(len(t.raw_data) for t in q.constants.values() if t.data_type == kind) for kind in {t.data_type for t in q.constants.values()}}
    table = 4 * 400 * 96
    assert bytes_of[onnx.TensorProto.FLOAT] < (1.3 * table if kept else 0.2 * table)
    assert q.sqnr({"i": ids}) > 10


def test_the_recipe_dynamic_takes_ranges_at_run_time(tmp_path):
    q = Quantized(tmp_path, model(), {"x": normal(8, 8, 12, 12, seed=5)}, "--recipe", "dynamic")
    ops = [n.op_type for n in q.nodes]
    assert ops.count("MatMulInteger") == 2 and "DynamicQuantizeLinear" in ops and "QuantizeLinear" not in ops


def convolutions():
    w = {"c1": normal(16, 3, 3, 3, scale=0.2, seed=1), "b1": normal(16, seed=6), "c2": normal(16, 1, 5, 5, scale=0.2, seed=2), "c3": normal(24, 8, 1, 1, scale=0.2, seed=3), "w1": normal(24, 32, seed=4)}
    return build("""g (float[N,3,12,12] x) => (float[N,32] y) {
      a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, c1, b1)
      r = Relu(a)
      d = Conv<group=16, auto_pad="SAME_UPPER">(r, c2)
      c = Conv<group=2>(d, c3)
      s = Sigmoid(c)
      p = GlobalAveragePool(s)
      f = Flatten(p)
      y = MatMul(f, w1)
    }""", **w)


def test_convolutions_take_ranges_at_run_time_where_asked(tmp_path):
    data = {"x": normal(8, 3, 12, 12, seed=5)}
    q = Quantized(tmp_path, convolutions(), data, "--recipe", "dynamic", "--set", "quantize_int8.dynamic_convolutions=true", "--set", "quantize_int8.min_weights=1")
    assert len(q.of("ConvInteger")) == 3 and len(q.of("MatMulInteger")) == 1 and len(q.of("DynamicQuantizeLinear")) == 4 and not q.of("Conv", "QuantizeLinear")
    assert {layer["form"] for layer in q.report["layers"]} == {"int8 dynamic"}
    one = {"x": data["x"][:1] * 3}  # beyond what calibration saw
    ours, theirs = outputs(tmp_path, q.path, one)
    original = onnxruntime.InferenceSession(str(q.source)).run(None, one)[0]
    assert np.abs(ours - theirs).max() < 2e-3 * np.abs(theirs).max()
    assert np.sum((ours - original) ** 2) < 1e-3 * np.sum(original**2)


def test_convolutions_at_run_time_compute_the_quantizers_numbers(tmp_path):
    """y = (Σ (q - z)·w)·s·t + b, the first layer by hand in NumPy's integers."""
    w, b = normal(4, 3, 3, 3, scale=0.2, seed=1), normal(4, seed=2)
    model = build("g (float[1,3,9,9] x) => (float[1,4,7,7] y) { y = Conv(x, c1, b1) }", c1=w, b1=b)
    x = normal(1, 3, 9, 9, seed=3)
    q = Quantized(tmp_path, model, {"x": x}, "--recipe", "dynamic", "--set", "quantize_int8.dynamic_convolutions=true", "--set", "quantize_int8.min_weights=1", "--set", "quantize_int8.bias_correction=false")
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = np.float32((high - low) / 255)
    zero = int(np.clip(np.rint(-low / scale), 0, 255))
    codes = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.int64) - zero
    steps = np.abs(w).max(axis=(1, 2, 3)) / 127
    weights = q.array(q.of("ConvInteger")[0].input[1]).astype(np.int64) - 128
    assert np.abs(weights * steps[:, None, None, None] - w).max() <= 1.01 * steps.max()  # a code or the one beside it: sums over the taps are kept
    windows = np.lib.stride_tricks.sliding_window_view(codes, (3, 3), axis=(2, 3))
    sums = np.einsum("nchwij,ocij->nohw", windows, weights)
    expected = sums * (scale * steps)[None, :, None, None] + b[None, :, None, None]
    ours, theirs = outputs(tmp_path, q.path, {"x": x})
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(theirs, expected, rtol=1e-4, atol=1e-5)


def test_convolutions_keep_storage_form_where_they_are_not_asked_for(tmp_path):
    q = Quantized(tmp_path, convolutions(), {"x": normal(8, 3, 12, 12, seed=5)}, "--recipe", "dynamic", "--set", "quantize_int8.min_weights=1")
    assert not q.of("ConvInteger") and {layer["form"] for layer in q.report["layers"] if layer["op"] == "Conv"} == {"int8 storage"}
