"""Channels, neurons and heads taken out: the written file is a smaller dense model that infopt and ONNX Runtime read alike."""

import numpy as np
import onnx
import pytest
from quantize_support import ROOT, SAMPLES, Quantized, build, infopt, normal, rng
from test_weight_only import run_infopt, run_ort

STEPS = "version: 1\nsteps:\n  - remove_dead\n  - prune_channels: {%s}\n  - remove_dead\n"


def counted(report):
    return next(p for p in report["passes"] if p["name"] == "prune_channels")["notes"]


def parameters(model):
    return sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)


@pytest.mark.parametrize("sample", SAMPLES)
def test_sample_models_lose_channels_and_little_else(tmp_path, sample):
    folder = ROOT / "sample_models" / sample
    recipe = "heads" if sample == "text_language" else "channels-30"
    infopt("quantize", folder / "model.onnx", "--calib", folder / "calib.npz", "-o", tmp_path / "out.onnx", "--recipe", recipe)
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    before, after = onnx.load(folder / "model.onnx"), onnx.load(tmp_path / "out.onnx")
    assert parameters(after) < 0.85 * parameters(before)
    data = dict(np.load(folder / "eval.npz"))
    label = data.pop("label")
    x = {k: v[:64] for k, v in data.items()}
    name = after.graph.output[0].name
    np.savez(tmp_path / "in.npz", **x)
    infopt("run", tmp_path / "out.onnx", "--input", tmp_path / "in.npz", "-o", tmp_path / "y.npz")
    ort = run_ort(tmp_path / "out.onnx", x)
    assert np.abs(np.load(tmp_path / "y.npz")[name] - ort).max() <= 1e-4 * np.abs(ort).max()
    lost = (run_ort(folder / "model.onnx", data).argmax(1) == label).mean() - (run_ort(tmp_path / "out.onnx", data).argmax(1) == label).mean()
    assert lost <= 0.06


def test_dynamic_sizes_stay_dynamic(tmp_path):
    graph = """g (float[N,T,24] x) => (float[N,T,24] y) {
      q0 = MatMul(x, wq) k0 = MatMul(x, wk) v0 = MatMul(x, wv)
      h = Shape(x) n = Gather(h, zero) t = Gather(h, one) s = Concat <axis = 0> (n, t, heads, each) o = Concat <axis = 0> (n, t, all)
      q1 = Reshape(q0, s) k1 = Reshape(k0, s) v1 = Reshape(v0, s)
      q = Transpose <perm = [0,2,1,3]> (q1) k = Transpose <perm = [0,2,3,1]> (k1) v = Transpose <perm = [0,2,1,3]> (v1)
      z = MatMul(q, k) p = Softmax <axis = -1> (z) a = MatMul(p, v) a1 = Transpose <perm = [0,2,1,3]> (a) a2 = Reshape(a1, o) y = MatMul(a2, wo)
    }"""
    weights = {f"w{c}": normal(24, 24, scale=0.2, seed=i) for i, c in enumerate("qkvo")}
    sizes = {k: np.array([v], np.int64) for k, v in {"zero": 0, "one": 1, "heads": 6, "each": 4, "all": 24}.items()}
    x = rng(1).standard_normal((40, 7, 24)).astype(np.float32)
    q = Quantized(tmp_path, build(graph, **weights, **sizes), {"x": x}, recipe=STEPS % "target: params, reduce: 0.3")
    assert {tuple(t.dims) for t in q.model.graph.initializer if len(t.dims) == 2} == {(24, 16), (16, 24)}
    for shape in ((1, 3, 24), (3, 11, 24)):
        x = rng(2).standard_normal(shape).astype(np.float32)
        assert np.abs(run_infopt(tmp_path, q.path, {"x": x}) - run_ort(q.path, {"x": x})).max() < 1e-4


def test_an_operator_that_nobody_knows_stands_in_the_way_and_is_named(tmp_path):
    graph = "g (float[N,8] x) => (float[N,4] y) { a = MatMul(x, w1) b = Einsum <equation = \"ij->ij\"> (a) c = MatMul(b, w2) d = Relu(c) y = MatMul(d, w3) }"
    weights = {"w1": normal(8, 16, seed=1), "w2": normal(16, 16, seed=2), "w3": normal(16, 4, seed=3)}
    x = rng(1).standard_normal((64, 8)).astype(np.float32)
    q = Quantized(tmp_path, build(graph, **weights), {"x": x}, recipe=STEPS % "reduce: 0.3")
    notes = "\n".join(counted(q.report))
    assert "Einsum" in notes and "16 of" in notes
    assert {tuple(t.dims) for t in q.model.graph.initializer if len(t.dims) == 2} >= {(8, 16)}


def test_pruning_needs_data_and_says_so(tmp_path):
    onnx.save(build("g (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }", w=normal(8, 8)), tmp_path / "m.onnx")
    (tmp_path / "r.yaml").write_text(STEPS % "reduce: 0.3")
    done = infopt("quantize", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", "--recipe", tmp_path / "r.yaml", expect=2)
    assert "calib" in done.stderr
    assert not (tmp_path / "o.onnx").exists()
