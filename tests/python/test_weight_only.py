"""Weights alone in few bits: what is written, and that infopt and ONNX Runtime read it alike."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from quantize_support import Quantized, build, infopt, normal, rng

STEPS = "version: 1\nsteps:\n  - remove_dead\n  - quantize_weights: {%s}\n  - remove_dead\n"
GRAPH = """g (float[N,T,96] x) => (float[N,T,40] y) {
  a = LayerNormalization(x, g0, b0)
  h = MatMul(a, w1)
  r = Relu(h)
  z = MatMul(r, w2)
  y = Add(z, b2)
}"""


def model(opset=17):
    w = {"g0": normal(96, seed=1), "b0": normal(96, seed=2), "w1": normal(96, 128, scale=0.1, seed=3), "w2": normal(128, 40, scale=0.1, seed=4), "b2": normal(40, seed=5)}
    return build(GRAPH, opset=opset, **w)


def data(samples=48):
    """Inputs of few directions, so that rounding can be made up for."""
    x = rng(9).standard_normal((samples, 8, 12)) @ rng(10).standard_normal((12, 96)) + 0.3 * rng(11).standard_normal((samples, 8, 96))
    return {"x": x.astype(np.float32)}


def run_ort(path, x):
    """As the graph stands: optimized, ONNX Runtime rounds the activations before such weights to 8 bits."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, x)[0]


def run_infopt(folder, path, x):
    np.savez(folder / "in.npz", **x)
    infopt("run", path, "--input", folder / "in.npz", "-o", folder / "out.npz")
    return np.load(folder / "out.npz")["y"]


def sqnr(reference, y):
    return 10 * np.log10(np.sum(reference**2) / max(np.sum((reference - y) ** 2), 1e-30))


@pytest.mark.parametrize(
    "options,opset,type_",
    [
        ("type: int4, block_size: 32", 21, onnx.TensorProto.INT4),
        ("type: uint4, block_size: 16, symmetric: false", 21, onnx.TensorProto.UINT4),
        ("type: int4, block_size: 0", 21, onnx.TensorProto.INT4),
        ("type: int8, block_size: 0", 17, onnx.TensorProto.INT8),
        ("type: uint8, block_size: 0, symmetric: false", 17, onnx.TensorProto.UINT8),
        ("type: int8, block_size: 64", 21, onnx.TensorProto.INT8),
    ],
)
@pytest.mark.parametrize("algorithm", ["nearest", "gptq"])
def test_the_file_is_standard_and_both_runtimes_agree(tmp_path, options, opset, type_, algorithm):
    q = Quantized(tmp_path, model(), data(), recipe=STEPS % f"algorithm: {algorithm}, {options}")
    assert q.model.opset_import[0].version == opset
    assert sorted(t.data_type for t in q.constants.values() if t.dims and len(t.dims) == 2 and t.dims[0] in (96, 128)) == [type_] * 2
    x = data(4)
    reference, ours = run_ort(q.path, x), run_infopt(tmp_path, q.path, x)
    assert np.abs(reference - ours).max() < 1e-4 * np.abs(reference).max()
    assert [layer["form"] for layer in q.report["layers"]] == ["weights only"] * 2
    assert {layer["algorithm"] for layer in q.report["layers"]} == {algorithm}


@pytest.mark.parametrize("options", ["type: int4", "type: uint4, symmetric: false", "type: int8", "type: uint4, block_size: 128, symmetric: false"])
def test_matmul_nbits_gives_what_dequantize_linear_gives(tmp_path, options):
    outputs = []
    for form in ("qdq", "matmul_nbits"):
        folder = tmp_path / form
        folder.mkdir()
        q = Quantized(folder, model(), data(), recipe=STEPS % f"algorithm: gptq, form: {form}, {options}")
        outputs += [run_ort(q.path, data(4)), run_infopt(folder, q.path, data(4))]
    assert [n.op_type for n in q.nodes if n.domain] == ["MatMulNBits"] * 2
    assert q.model.opset_import[0].version == 17
    # ONNX Runtime may round the activations of MatMulNBits to 8 bits; infopt doesn't.
    for y, least in zip(outputs[1:], (80, 30, 80)):
        assert sqnr(outputs[0], y) > least


@pytest.mark.parametrize("type_,onnx_type", [("int2", onnx.TensorProto.INT2), ("uint2, symmetric: false", onnx.TensorProto.UINT2)])
def test_two_bits_need_opset_25_and_run_in_infopt(tmp_path, type_, onnx_type):
    q = Quantized(tmp_path, model(), data(), recipe=STEPS % f"type: {type_}, algorithm: gptq", load=False)
    assert q.model.opset_import[0].version == 25
    onnx.checker.check_model(q.model, full_check=True)
    assert onnx_type in {t.data_type for t in q.constants.values()}
    y = run_infopt(tmp_path, q.path, data(4))
    assert sqnr(ReferenceEvaluator(q.model).run(None, data(4))[0], y) > 100
    onnx.save(model(), tmp_path / "float.onnx")
    assert sqnr(run_ort(tmp_path / "float.onnx", data(4)), y) > 4


def test_gptq_and_awq_lose_less_than_rounding_to_nearest(tmp_path):
    x = data(16)
    onnx.save(model(), tmp_path / "float.onnx")
    reference = run_ort(tmp_path / "float.onnx", x)
    db = {}
    for algorithm in ("nearest", "awq", "gptq", "awq_gptq"):
        db[algorithm] = sqnr(reference, run_ort(Quantized(tmp_path, model(), data(), recipe=STEPS % f"algorithm: {algorithm}").path, x))
    assert db["gptq"] > db["nearest"] + 3
    assert db["awq_gptq"] > db["nearest"] + 3
    assert db["awq"] > db["nearest"]


def test_convolutions_are_rounded_per_channel_whatever_their_groups(tmp_path):
    text = """g (float[N,12,9,9] x) => (float[N,16,5,5] y) {
      a = Conv<pads = [1,1,1,1]>(x, w0, b0)
      b = Relu(a)
      c = Conv<group = 24, kernel_shape = [3,3], auto_pad = "SAME_UPPER">(b, w1)
      d = Conv<group = 2, strides = [2,2], pads = [1,1,1,1], dilations = [1,1]>(c, w2)
      y = Conv(d, w3)
    }"""
    w = {"w0": normal(24, 12, 3, 3, seed=1), "b0": normal(24, seed=2), "w1": normal(24, 1, 3, 3, seed=3), "w2": normal(32, 12, 3, 3, seed=4), "w3": normal(16, 32, 1, 1, seed=5)}
    x = {"x": normal(20, 12, 9, 9, seed=6)}
    onnx.save(build(text, **w), tmp_path / "float.onnx")
    db = {}
    for algorithm in ("nearest", "gptq"):
        q = Quantized(tmp_path, build(text, **w), x, recipe=STEPS % f"algorithm: {algorithm}, min_weights: 1")
        ours = run_infopt(tmp_path, q.path, x)
        assert np.abs(run_ort(q.path, x) - ours).max() < 1e-3 * np.abs(ours).max()
        db[algorithm] = sqnr(run_ort(tmp_path / "float.onnx", x), ours)
    assert db["gptq"] > db["nearest"] + 1


@pytest.mark.parametrize("product", ["l = Transpose<perm = [1,0]>(table)\n y = MatMul(h, l)", "f = Reshape(h, flat)\n y = Gemm<transB = 1>(f, table)"])
def test_a_table_that_is_multiplied_with_too_is_stored_once(tmp_path, product):
    text = "g (int64[N,6] ids) => (float[M,K,50] y) { e = Gather(table, ids)\n h = MatMul(e, w)\n %s }" % product
    if "Gemm" in product:
        text = text.replace("float[M,K,50]", "float[M,50]")
    ids = {"ids": rng(3).integers(0, 50, (40, 6))}
    source = build(text, table=normal(50, 64, seed=1), w=normal(64, 64, scale=0.1, seed=2), flat=np.array([-1, 64]))
    q = Quantized(tmp_path, source, ids, recipe=STEPS % "type: int4")
    assert [list(t.dims) for t in q.constants.values() if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2] == [[50, 64]]
    onnx.save(source, tmp_path / "float.onnx")
    ours = run_infopt(tmp_path, q.path, ids)
    assert sqnr(run_ort(q.path, ids), ours) > 100
    assert sqnr(run_ort(tmp_path / "float.onnx", ids), ours) > 20
    kept = Quantized(tmp_path, source, ids, recipe=STEPS % "type: int4, embeddings: float")
    assert "Gather" in [n.op_type for n in kept.nodes] and any(list(t.dims) == [50, 64] and t.data_type == 1 for t in kept.constants.values())


def test_groups_choose_types_and_keep_layers_in_float(tmp_path):
    groups = "groups:\n  - {name: first, nodes: [w1], weights: int8}\n  - {name: second, nodes: [w2], weights: float32}\n"
    q = Quantized(tmp_path, model(), data(), recipe=STEPS % "algorithm: nearest" + groups)
    assert [layer["form"] for layer in q.report["layers"]] == ["weights only", "float32"]
    assert q.report["layers"][0]["weights"] == "int8, blocks of 32"


def test_the_same_bytes_for_any_number_of_threads(tmp_path):
    made = [Quantized(tmp_path, model(), data(), "--threads", n, recipe=STEPS % "algorithm: awq_gptq").bytes for n in (1, 3)]
    assert made[0] == made[1]


def test_data_is_needed_only_where_inputs_are_looked_at(tmp_path):
    onnx.save(model(), tmp_path / "m.onnx")
    for algorithm, code in (("nearest", 0), ("gptq", 2)):
        (tmp_path / "r.yaml").write_text(STEPS % f"algorithm: {algorithm}")
        done = infopt("quantize", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", "--recipe", tmp_path / "r.yaml", expect=code)
    assert "gptq" in done.stderr and "--calib" in done.stderr


@pytest.mark.parametrize("options,words", [("block_size: 24", "power of 2"), ("block_size: 0, form: matmul_nbits", "block_size")])
def test_blocks_that_cannot_be_written_are_refused(tmp_path, options, words):
    onnx.save(model(), tmp_path / "m.onnx")
    (tmp_path / "r.yaml").write_text(STEPS % f"algorithm: nearest, {options}")
    assert words in infopt("quantize", tmp_path / "m.onnx", "-o", tmp_path / "o.onnx", "--recipe", tmp_path / "r.yaml", expect=2).stderr
