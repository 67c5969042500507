"""16-bit activations: by option, by group and as what noisy layers fall back to; judged by ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from quantize_support import Quantized, build, infopt, normal, sqnr

NET = """g (float[N,8,12,12] x) => (float[N,10] y) {
  a = Conv<pads=[1,1,1,1]>(x, c1)
  r = Relu(a)
  b = Conv<pads=[1,1,1,1]>(r, c2)
  p = GlobalAveragePool(b)
  f = Flatten(p)
  y = Gemm<transB=1>(f, w2, b2)
}"""
TYPES = {"uint16": onnx.TensorProto.UINT16, "int16": onnx.TensorProto.INT16}
STEPS = "version: 1\ntarget: %s\nsteps:\n  - remove_dead\n  - quantize_int8: {min_weights: 1, activations: static%s}\n  - remove_dead\n"


def model():
    weights = {"c1": normal(16, 8, 3, 3, scale=0.1, seed=1), "c2": normal(16, 16, 3, 3, scale=0.1, seed=2), "w2": normal(10, 16, scale=0.1, seed=3), "b2": normal(10, seed=4)}
    return build(NET, **weights)


def data():
    return {"x": normal(8, 8, 12, 12, seed=5)}


def code_types(q):
    return [q.constants[n.input[2]].data_type for n in q.nodes if n.op_type == "QuantizeLinear"]


def both(folder, q):
    x = data()
    infopt("run", q.path, "--input", folder / "calib.npz", "-o", folder / "out.npz")
    return np.load(folder / "out.npz")["y"], q.session.run(None, x)[0], onnxruntime.InferenceSession(str(q.source)).run(None, x)[0]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("target", ["generic", "tensorrt"])
def test_all_activations_of_16_bits(tmp_path, type_, target):
    q = Quantized(tmp_path, model(), data(), recipe=STEPS % (target, f", activation_type: {type_}"))
    assert q.model.opset_import[0].version == 21
    assert set(code_types(q)) == {TYPES[type_]}
    ours, theirs, original = both(tmp_path, q)
    assert sqnr(theirs, ours) > 80
    # Measured when written: 8-bit weights alone leave 46 dB.
    assert sqnr(original, ours) > 40


def test_a_group_has_16_bits_for_what_its_nodes_read(tmp_path):
    recipe = STEPS % ("generic", "") + "groups:\n  - {name: wide, nodes: [c2], activations: int16}\n"
    q = Quantized(tmp_path, model(), data(), recipe=recipe)
    types = code_types(q)
    assert types.count(onnx.TensorProto.INT16) == 1 and len(types) > 1
    assert [("16 bits" in x["reason"]) for x in q.report["layers"]] == [False, True, False]
    ours, theirs, _ = both(tmp_path, q)
    assert sqnr(theirs, ours) > 40


def test_noisy_layers_fall_back_to_16_bits_before_float(tmp_path):
    few = {"x": data()["x"][:2]}
    narrow = Quantized(tmp_path, model(), few, recipe=STEPS % ("generic", ""))
    wanted = narrow.sqnr(few) + 0.3
    q = Quantized(tmp_path, model(), few, recipe=STEPS % ("generic", f", fallback: int16, min_sqnr_db: {wanted}"))
    assert onnx.TensorProto.INT16 in code_types(q)
    assert any(x["reason"].startswith("activations of 16 bits: in 8 it was among") for x in q.report["layers"])
    assert q.sqnr(few) >= wanted - 0.05
