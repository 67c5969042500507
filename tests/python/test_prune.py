"""infopt prune: what is written, that both runtimes read it alike, what the report says, and what can't be done."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from quantize_support import Sample, build, infopt, normal, outputs, rng, session, sqnr
from test_weight_only import data, model

STEPS = "version: 1\nsteps:\n  - remove_dead\n  - prune_weights: {%s}\n%s  - remove_dead\n"


class Pruned:
    def __init__(self, folder, options, more="", source=None, calib=None, extra="", flags=(), recipe=None):
        self.source = folder / "source.onnx"
        onnx.save(source or model(), self.source)
        np.savez(folder / "calib.npz", **(calib or data()))
        (folder / "recipe.yaml").write_text((recipe or STEPS % (options, more)) + extra)
        self.path = folder / "out.onnx"
        done = infopt("prune", self.source, "--calib", folder / "calib.npz", "-o", self.path, "--recipe", folder / "recipe.yaml", "--json", *flags)
        self.report = json.loads(done.stdout)
        onnx.checker.check_model(self.path, full_check="sparse_initializers" not in extra)  # ONNX's inference gives them a sparse type
        self.model = onnx.load(self.path)

    def weights(self):
        """What stands at the products' second inputs, as ONNX Runtime computes it."""
        m = onnx.load(self.path)
        names = [n.input[1] for n in m.graph.node if n.op_type in ("MatMul", "Conv")]
        del m.graph.output[:]
        m.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names)
        used = {v for n in m.graph.node for v in n.input}
        for t in m.graph.initializer:
            used.add(t.name)
        return session(m).run(names, {i.name: np.zeros([d.dim_value or 2 for d in i.type.tensor_type.shape.dim], np.float32) for i in m.graph.input})

    def sqnr(self, feeds):
        return sqnr(outputs(self.source, feeds)[0], outputs(self.path, feeds)[0])


def agree(folder, path, x):
    np.savez(folder / "in.npz", **x)
    infopt("run", path, "--input", folder / "in.npz", "-o", folder / "out.npz")
    ours, reference = np.load(folder / "out.npz")["y"], outputs(path, x)[0]
    assert np.abs(ours - reference).max() < 1e-4 * np.abs(reference).max()


@pytest.mark.parametrize("pattern,check", [("sparsity: 0.5", None), ("pattern: n:m", 4), ("pattern: block, block_rows: 8, block_columns: 2", None)])
@pytest.mark.parametrize("score", ["magnitude", "wanda", "sparsegpt"])
def test_half_of_the_weights_go_and_both_runtimes_agree(tmp_path, pattern, check, score):
    p = Pruned(tmp_path, f"{pattern}, score: {score}")
    for w in p.weights():
        assert abs((w == 0).mean() - 0.5) < 0.01
        if check:
            assert ((w.reshape(-1, check, w.shape[1]) != 0).sum(1) <= 2).all()
    agree(tmp_path, p.path, data(4))
    assert [layer["removed"] for layer in p.report["pruned"]] == pytest.approx([0.5, 0.5], abs=0.01)
    assert {layer["algorithm"] for layer in p.report["pruned"]} == {score}
    cost = p.report["cost"]
    assert cost["original"] == cost["optimized"] and cost["original"]["macs"] == 8 * (96 * 128 + 128 * 40)  # of the first sample, zeros included


def test_what_looks_at_the_inputs_loses_less(tmp_path):
    found = {}
    for name, options in {
        "magnitude": "score: magnitude",
        "wanda": "score: wanda",
        "sparsegpt": "score: sparsegpt",
        "fitted": "score: sparsegpt, refit_steps: 30",
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        found[name] = Pruned(folder, options).sqnr(data(48))
    assert found["sparsegpt"] > found["magnitude"] + 6 and found["sparsegpt"] > found["wanda"] + 3
    assert found["fitted"] > found["sparsegpt"]


@pytest.mark.parametrize("score", ["magnitude", "wanda", "sparsegpt"])
def test_global_scope_and_sensitivity_reach_the_share(tmp_path, score):
    for scope in ("global", "sensitivity"):
        folder = tmp_path / scope
        folder.mkdir()
        p = Pruned(folder, f"score: {score}, scope: {scope}, sparsity: 0.6")
        assert p.report["removed_share"] == pytest.approx(0.6, abs=0.01)


def test_groups_choose_the_share(tmp_path):
    groups = "groups:\n  - {name: first, nodes: [w1], sparsity: 0}\n  - {name: last, nodes: [w2], sparsity: 0.75}\n"
    p = Pruned(tmp_path, "score: wanda", extra=groups)
    assert [(w == 0).mean() for w in p.weights()] == pytest.approx([0, 0.75], abs=0.01)
    assert p.report["pruned"][0]["reason"] == "group first keeps its weights"


@pytest.mark.parametrize("step", ["quantize_weights: {type: int8, block_size: 0}", "quantize_weights: {type: uint4, symmetric: false}", "quantize_int8: {min_sqnr_db: -50}",
                                  "quantize_int8: {min_sqnr_db: -50, rounding: adaround, iterations: 30}", "quantize_float8: {}"])
def test_quantization_keeps_zeros(tmp_path, step):
    p = Pruned(tmp_path, "sparsity: 0.7", more=f"  - {step}\n")
    constants = {t.name: t for t in p.model.graph.initializer}
    seen = 0
    for n in p.model.graph.node:
        if n.op_type != "DequantizeLinear" or n.input[0] not in constants or len(constants[n.input[0]].dims) != 2:
            continue
        codes = numpy_helper.to_array(constants[n.input[0]]).astype(np.float32)
        zero = numpy_helper.to_array(constants[n.input[2]]).astype(np.float32) if len(n.input) > 2 else np.float32(0)
        if zero.ndim == 2 and zero.shape != codes.shape:
            zero = np.repeat(zero, codes.shape[0] // zero.shape[0], 0)
        assert (codes == zero).mean() > 0.695
        seen += 1
    assert seen == 2


def test_pruned_and_rounded_in_one_sweep(tmp_path):
    for pattern in ("unstructured", '"2:4"'):
        recipe = "version: 1\nsteps:\n  - prune_weights: {score: magnitude, sparsity: 0}\n  - quantize_weights: {type: int8, block_size: 0, sparsity: 0.5, pattern: %s}\n  - remove_dead\n" % pattern
        p = Pruned(tmp_path, "", recipe=recipe)
        swept = [layer for layer in p.report["pruned"] if "one sweep" in layer.get("algorithm", "")]
        assert [layer["removed"] for layer in swept] == pytest.approx([0.5, 0.5], abs=0.03)


def test_packed_zeros_shrink_the_file_and_nothing_else(tmp_path):
    (tmp_path / "dense").mkdir(), (tmp_path / "packed").mkdir()
    dense = Pruned(tmp_path / "dense", "score: magnitude")
    packed = Pruned(tmp_path / "packed", "score: magnitude", more="  - pack_zeros\n")
    assert packed.report["size_ratio"] < 0.6 < dense.report["size_ratio"]
    x = data(4)
    assert (outputs(dense.path, x)[0] == outputs(packed.path, x)[0]).all()
    assert packed.report["cost"] == dense.report["cost"]
    agree(tmp_path, packed.path, x)
    # Read again, it is the same graph with the same weights.
    again = tmp_path / "again.onnx"
    infopt("optimize", packed.path, "-o", again)
    assert [n.op_type for n in onnx.load(again).graph.node if n.op_type in ("BitShift", "Gather")] == []


def test_sparse_initializers_are_onnx_s_own(tmp_path):
    p = Pruned(tmp_path, "score: magnitude, sparsity: 0.8", extra="output: {sparse_initializers: true}\n")
    sparse = p.model.graph.sparse_initializer
    assert len(sparse) == 2 and p.report["size_ratio"] < 0.65
    dense = {}
    for t in sparse:
        values, indices = numpy_helper.to_array(t.values), numpy_helper.to_array(t.indices)
        flat = np.zeros(np.prod(t.dims), np.float32)
        flat[indices] = values
        dense[t.values.name] = flat.reshape(t.dims)
        assert (values != 0).all() and (np.diff(indices) > 0).all()
    reference = onnx.load(p.path)
    del reference.graph.sparse_initializer[:]
    reference.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in dense.items())
    x = data(4)
    expected = outputs(reference, x)[0]
    assert np.abs(outputs(p.path, x)[0] - expected).max() <= 1e-5 * np.abs(expected).max()  # ONNX Runtime reads them
    agree(tmp_path, p.path, x)
    # Below two thirds zeros the indices' 8 bytes cost more than they save.
    assert not Pruned(tmp_path, "score: magnitude, sparsity: 0.5", extra="output: {sparse_initializers: true}\n").model.graph.sparse_initializer


def recurrent():
    """Two-way GRU, whose outputs' directions are joined, and a branch with a product."""
    r = rng(5)
    weights = {"w": r.normal(size=(2, 96, 24)) * 0.3, "r": r.normal(size=(2, 96, 32)) * 0.2, "b": r.normal(size=(2, 192)) * 0.1}
    branches = []
    for name in ("then", "else"):
        inner = [helper.make_tensor(f"{name}_w", TensorProto.FLOAT, [64, 16], normal(64, 16, seed=6) * 0.2)]
        branches.append(helper.make_graph([helper.make_node("MatMul", ["joined", f"{name}_w"], [f"{name}_y"])], name, [], [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)], inner))
    nodes = [helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]), helper.make_node("GRU", ["steps", "w", "r", "b"], ["states"], hidden_size=32, direction="bidirectional", linear_before_reset=1),
             helper.make_node("Transpose", ["states"], ["turned"], perm=[2, 0, 1, 3]), helper.make_node("Reshape", ["turned", "shape"], ["joined"]),
             helper.make_node("ReduceMean", ["joined"], ["mean"], keepdims=0), helper.make_node("Greater", ["mean", "zero"], ["c"]), helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])]
    constants = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()] + [numpy_helper.from_array(np.array([0, 0, 64]), "shape"), numpy_helper.from_array(np.float32(0), "zero")]
    graph = helper.make_graph(nodes, "recurrent", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12, 24])], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 12, 16])], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sequences(count, seed=7):
    r = rng(seed)
    return {"x": (r.normal(size=(count, 12, 6)) @ rng(8).normal(size=(6, 24)) * 0.4).astype(np.float32)}


def test_recurrent_layers_and_branches_lose_their_share_and_less_with_inputs_in_view(tmp_path):
    kept = {}
    for score in ("magnitude", "sparsegpt"):
        folder = tmp_path / score
        folder.mkdir()
        p = Pruned(folder, f"score: {score}", more="  - pack_zeros\n", source=recurrent(), calib=sequences(64))
        assert p.report["removed_share"] == pytest.approx(0.5, abs=0.01)
        assert len(p.report["pruned"]) == 3  # both branches hold the same
        assert p.report["size_ratio"] < 0.62
        agree(folder, p.path, sequences(4, 9))
        kept[score] = p.sqnr(sequences(32, 10))
    assert kept["sparsegpt"] > kept["magnitude"] + 2


@pytest.mark.parametrize("step,least", [("quantize_weights: {type: int8, block_size: 0, min_sqnr_db: -50}", 0.49), ("quantize_weights: {type: uint4, symmetric: false, block_size: 32, min_sqnr_db: -50}", 0.49), ("quantize_float8: {min_sqnr_db: -50}", 0.49)])
def test_zeros_of_recurrent_layers_are_kept_by_quantization(tmp_path, step, least):
    p = Pruned(tmp_path, "score: sparsegpt", more=f"  - {step}\n", source=recurrent(), calib=sequences(64))
    m = onnx.load(p.path)
    gru = next(n for n in m.graph.node if n.op_type == "GRU")
    del m.graph.output[:]
    m.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in gru.input[1:3])
    for w in session(m).run(list(gru.input[1:3]), sequences(1)):
        assert (w == 0).mean() > least


def test_nothing_to_prune_is_said(tmp_path):
    source = build("g (float[N,8] x) => (float[N,8] y) { y = Relu(x) }")
    p = Pruned(tmp_path, "score: magnitude", source=source, calib={"x": normal(4, 8)})
    assert any("nothing was pruned" in w and "no Conv" in w for w in p.report["warnings"])
    assert [n.op_type for n in p.model.graph.node] == ["Relu"]
    tiny = build("g (float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }", w=normal(8, 8))
    p = Pruned(tmp_path, "score: magnitude", source=tiny, calib={"x": normal(4, 8)})
    assert any("too few weights" in w for w in p.report["warnings"])


def test_an_unknown_operator_leaves_what_follows_to_magnitude(tmp_path):
    source = build("g (float[N,32] x) => (float[N,64] y) { a = MatMul(x, w1) b = acme.Magic(a) y = MatMul(b, w2) }", domains=', "acme" : 1', w1=normal(32, 40), w2=normal(40, 64))
    onnx.save(source, tmp_path / "source.onnx")
    np.savez(tmp_path / "calib.npz", x=normal(16, 32))
    (tmp_path / "recipe.yaml").write_text(STEPS % ("score: sparsegpt", ""))
    report = json.loads(infopt("prune", tmp_path / "source.onnx", "--calib", tmp_path / "calib.npz", "-o", tmp_path / "out.onnx", "--recipe", tmp_path / "recipe.yaml", "--json").stdout)
    assert [layer["algorithm"] for layer in report["pruned"]] == ["sparsegpt", "magnitude"]
    assert report["pruned"][1]["reason"] == "by magnitude: its input can't be computed"
    assert report["unknown_operators"] == [{"op": "acme.Magic", "count": 1}]


def test_what_is_asked_wrongly_is_a_usage_error(tmp_path):
    onnx.save(model(), tmp_path / "m.onnx")
    arguments = ("prune", tmp_path / "m.onnx", "-o", tmp_path / "out.onnx")
    assert "calibration data" in infopt(*arguments, "--recipe", "2to4", expect=2).stderr
    assert "no step that prunes" in infopt(*arguments, "--recipe", "optimize", expect=2).stderr
    infopt(*arguments, "--set", "prune_weights.pattern=n:m", "--set", "prune_weights.n=4", expect=2)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("recipe", ["magnitude-50", "2to4", "prune-int8"])
def test_recipes_on_a_sample_model(tmp_path, recipe):
    sample = Sample("digits_cnn")
    out = tmp_path / "out.onnx"
    report = json.loads(infopt("prune", sample.model, "--calib", sample.calib, "-o", out, "--recipe", recipe, "--json").stdout)
    logits = outputs(out, sample.feeds)[0]
    assert sample.top1(logits) > sample.top1(sample.logits) - 0.03
    before, after = report["cost"]["original"], report["cost"]["optimized"]
    assert before["macs"] == after["macs"] and 0.98 * before["parameters"] < after["parameters"] < before["parameters"]  # what went are the normalizations
    assert report["removed_share"] > 0.3
    assert report["size_ratio"] < {"magnitude-50": 0.65, "2to4": 1.01, "prune-int8": 0.25}[recipe]
    first = out.read_bytes()
    infopt("prune", sample.model, "--calib", sample.calib, "-o", out, "--recipe", recipe, "--threads", "1", "--batch", "3")
    assert out.read_bytes() == first
