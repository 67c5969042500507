"""`infopt sensitivity`: damage beside NumPy's and ONNX Runtime's, causes, and recipe lines that quantize takes."""
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from support import MALFORMED, OK, UNSUPPORTED, USAGE, expect, model_of, two_layers


@pytest.fixture
def case(tmp_path):
    model = two_layers()
    onnx.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(5).standard_normal((12, 64)).astype(np.float32)
    x[:, 3] *= 30
    np.savez(tmp_path / "calib.npz", x=x)
    return tmp_path, model, x


def sites_of(folder, *args):
    done = expect(OK, "sensitivity", folder / "m.onnx", "--calib", folder / "calib.npz", "--json", *args)
    return json.loads(done.stdout)


def damage(report, kind, name, precision):
    for site in report["sites"]:
        if site["kind"] == kind and (site["name"] == name or name in site["layers"]):
            return next(d for d in site["damage"] if d["precision"] == precision)
    raise AssertionError(f"no site {kind} {name}")


def sqnr(reference, other):
    return 10 * np.log10(np.sum(reference.astype(np.float64) ** 2) / np.sum((reference.astype(np.float64) - other) ** 2))


def run(model, x):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def with_rounded_weights(model, name, bits):
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name == name:
            w = numpy_helper.to_array(tensor)
            top = 2 ** (bits - 1) - 1
            scale = np.abs(w).max(axis=0, keepdims=True) / top
            tensor.CopyFrom(numpy_helper.from_array((np.clip(np.rint(w / scale), -top, top) * scale).astype(np.float32), name))
    return changed


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("node, weight", [("first", "w1"), ("second", "w2")])
def test_weights_damage_is_what_numpy_and_onnxruntime_find(case, node, weight, bits):
    folder, model, x = case
    report = sites_of(folder, "--compare", 12)
    reference, rounded = run(model, x), run(with_rounded_weights(model, weight, bits), x)
    assert damage(report, "weights", node, f"w{bits}")["sqnr_db"] == pytest.approx(sqnr(reference, rounded), abs=0.05 if bits == 4 else 0.3)


def test_activations_damage_and_divergence_are_what_numpy_finds(case):
    folder, model, x = case
    report = sites_of(folder, "--compare", 12)
    low, high = x.min(), x.max()
    scale = (high - low) / 255
    zero = np.rint(-low / scale)
    rounded = ((np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)
    a, b = run(model, x).astype(np.float64), run(model, rounded).astype(np.float64)
    found = damage(report, "activations", "x", "a8")
    assert found["sqnr_db"] == pytest.approx(sqnr(a, b), abs=0.1)
    p, q = (np.exp(v - v.max(1, keepdims=True)) / np.exp(v - v.max(1, keepdims=True)).sum(1, keepdims=True) for v in (a, b))
    assert found["kl"] == pytest.approx(np.mean(np.sum(p * np.log(p / q), axis=1)), rel=0.1)


def test_recurrent_weights_are_rounded_by_rows_that_directions_share(tmp_path):
    rng = np.random.default_rng(9)
    w = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in {"w": (2, 24, 6), "r": (2, 24, 8)}.items()}
    w["w"][1] *= 5
    node = helper.make_node("GRU", ["x", "w", "r"], ["y"], name="gru", hidden_size=8, direction="bidirectional")
    model = model_of([node], [("x", [5, 1, 6])], [("y", None)], w)
    onnx.save(model, tmp_path / "m.onnx")
    x = rng.standard_normal((4, 5, 1, 6)).astype(np.float32)  # whole inputs: the first axis isn't the model's
    np.savez(tmp_path / "calib.npz", x=x)
    report = sites_of(tmp_path, "--precisions", "w8,w4,w4b16")

    def rounded(bits):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        for tensor in changed.graph.initializer:
            scale = np.abs(w[tensor.name]).max(axis=(0, 2), keepdims=True) / (2 ** (bits - 1) - 1)
            tensor.CopyFrom(numpy_helper.from_array((np.rint(w[tensor.name] / scale) * scale).astype(np.float32), tensor.name))
        return changed

    reference = np.stack([run(model, v) for v in x])
    for bits in (8, 4):
        expected = sqnr(reference, np.stack([run(rounded(bits), v) for v in x]))
        assert damage(report, "weights", "gru", f"w{bits}")["sqnr_db"] == pytest.approx(expected, abs=0.1)
    assert damage(report, "weights", "gru", "w4b16")["sqnr_db"] > damage(report, "weights", "gru", "w4")["sqnr_db"] + 1


def test_blocks_lose_less_than_channels_and_16_bits_less_than_8(case):
    folder, _, _ = case
    report = sites_of(folder, "--precisions", "w4,w4b16,a8,a16")
    assert damage(report, "weights", "first", "w4b16")["sqnr_db"] > damage(report, "weights", "first", "w4")["sqnr_db"] + 1
    assert damage(report, "activations", "x", "a16")["sqnr_db"] > damage(report, "activations", "x", "a8")["sqnr_db"] + 40


def test_an_outlier_channel_is_named_with_its_numbers(case):
    folder, _, _ = case
    causes = next(s["causes"] for s in sites_of(folder)["sites"] if s["name"] == "x")
    assert any(c.startswith("outlier channel: channel 3 reaches") for c in causes)


def test_threads_do_not_change_the_report(case):
    folder, _, _ = case
    assert sites_of(folder, "--threads", 1) == sites_of(folder, "--threads", 2)


def test_the_recipe_lines_are_taken_by_quantize(case):
    folder, _, _ = case
    groups = sites_of(folder, "--target-db", 60)["recipe"]
    assert "groups:" in groups
    recipe = folder / "r.yaml"
    recipe.write_text("version: 1\nsteps: [fold_constants, quantize_int8]\n" + groups)
    expect(OK, "recipe", "check", recipe)
    expect(OK, "quantize", folder / "m.onnx", "--calib", folder / "calib.npz", "--recipe", recipe, "-o", folder / "out.onnx")
    assert sites_of(folder, "--target-db", 1)["recipe"] == ""


def test_text_names_places_and_says_when_nothing_has_to_be_kept(case):
    folder, _, _ = case
    text = expect(OK, "sensitivity", folder / "m.onnx", "--calib", folder / "calib.npz", "--target-db", 1).stdout
    assert "weights     first" in text and "nothing has to stay in float" in text


@pytest.fixture
def labelled(case):
    """Evaluation data whose labels are the float model's best classes, a tenth of them another."""
    folder, model, _ = case
    rng = np.random.default_rng(8)
    x = rng.standard_normal((300, 64)).astype(np.float32)
    x[:, 3] *= 30
    labels = run(model, x).argmax(1)
    labels[::10] = (labels[::10] + 1) % 10
    np.savez(folder / "eval.npz", x=x, label=labels)
    return folder, model, x, labels


@pytest.mark.parametrize("node, weight", [("first", "w1"), ("second", "w2")])
def test_what_rounding_costs_the_task_is_what_numpy_counts(labelled, node, weight):
    folder, model, x, labels = labelled
    report = sites_of(folder, "--eval", folder / "eval.npz", "--metric", "top1")
    right = [(run(m, x).argmax(1) == labels).mean() for m in (model, with_rounded_weights(model, weight, 4))]
    assert report["metric"] == "top1"
    assert right[0] == 0.9 and right[0] - right[1] > 0.005
    assert damage(report, "weights", node, "w4")["drop"] == pytest.approx(right[0] - right[1], abs=0.005)


def test_a_command_tells_the_metric_too_and_samples_can_be_fewer(labelled):
    folder, _, _, labels = labelled
    script = folder / "errors.py"
    script.write_text(f"import sys, numpy as np\ny = np.load(sys.argv[1])['y']\nprint((y.argmax(1) != np.array({labels.tolist()})[:len(y)]).sum())\n")
    args = ["--eval", folder / "eval.npz", "--precisions", "w4", "--compare", 50]
    counted = sites_of(folder, *args, "--metric", "top1")
    printed = sites_of(folder, *args, "--metric", "command", "--set", f"eval.command={sys.executable} {script} {{outputs}}", "--set", "eval.higher_is_better=false", "--set", "eval.name=errors")
    assert printed["metric"] == "errors"
    for node in ("first", "second"):
        assert damage(printed, "weights", node, "w4")["drop"] == pytest.approx(50 * damage(counted, "weights", node, "w4")["drop"])


def test_places_that_cost_the_task_most_come_first_in_text(labelled):
    folder, _, _, _ = labelled
    text = expect(OK, "sensitivity", folder / "m.onnx", "--calib", folder / "calib.npz", "--eval", folder / "eval.npz", "--metric", "top1").stdout
    assert "what top1 loses" in text and "300 samples" in text
    worst = [max(float(w) for w in line.split() if w[0] in "+-" and w[1:2].isdigit()) for line in text.splitlines() if line.startswith(("    w8 ", "    a8 "))]
    assert len(worst) == 4 and worst == sorted(worst, reverse=True)


def test_a_metric_without_its_data_is_told(labelled):
    folder, _, x, _ = labelled
    np.savez(folder / "bare.npz", x=x)
    args = ["sensitivity", folder / "m.onnx", "--calib", folder / "calib.npz"]
    assert "--eval" in expect(USAGE, *args, "--metric", "top1").stderr
    assert "no labels" in expect(MALFORMED, *args, "--metric", "top1", "--eval", folder / "bare.npz").stderr
    assert "'top1'" in expect(USAGE, *args, "--metric", "top2", "--eval", folder / "eval.npz").stderr


def test_wrong_use_is_told_in_a_line(case):
    folder, _, _ = case
    assert "--calib" in expect(USAGE, "sensitivity", folder / "m.onnx").stderr
    assert "w4b32" in expect(USAGE, "sensitivity", folder / "m.onnx", "--calib", folder / "calib.npz", "--precisions", "w3").stderr
    nothing = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", ["N", 64])], [("y", ["N", 64])])
    onnx.save(nothing, folder / "nothing.onnx")
    assert "no layer" in expect(UNSUPPORTED, "sensitivity", folder / "nothing.onnx", "--calib", folder / "calib.npz").stderr
