"""The command line: what each command does, says and refuses, by exit code."""
import json
import os
import re
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from jsonschema import Draft202012Validator
from onnx import helper, numpy_helper

from support import DIGITS, GATE, IO, MALFORMED, OK, ROOT, UNSUPPORTED, USAGE, batch, expect, model_of, two_layers

COMMANDS = ["quantize", "optimize", "calibrate", "sensitivity", "prune", "tune", "run", "validate", "bench", "inspect", "recipe", "passes"]
RECIPES = ["2to4", "auto", "channels-30", "cnn-edge", "dynamic", "fp16", "fp8", "heads", "int4-awq", "int4-gptq", "int8", "int8-accurate", "int8-percentile", "magnitude-50", "mixed-transformer", "optimize", "prune-int8", "w4a8-reconstruct"]


# Help and usage

def test_help_lists_every_command_and_each_has_its_own():
    text = expect(OK, "--help").stdout
    for command in COMMANDS:
        assert command in text
        assert "--help" in expect(OK, command, "--help").stdout


def test_version_is_a_version():
    assert expect(OK, "--version").stdout.strip()[0].isdigit()


@pytest.mark.parametrize("arguments, told", [
    ([], ""),
    (["quantise"], "'quantize'"),
    (["recipe", "chek"], "'check'"),
    (["recipe"], ""),
    (["inspect"], "model"),
    (["inspect", "m.onnx", "--nonsense"], "--nonsense"),
    (["bench", "m.onnx", "--data", "d.npz", "--runs", "0"], "--runs"),
    (["run", "m.onnx"], "--input"),
    (["run", "m.onnx", "--device", "tpu", "--input", "x"], "--device"),
])
def test_wrong_usage_ends_with_2_and_one_line_that_says_what(arguments, told):
    assert told in expect(USAGE, *arguments).stderr


def test_a_device_that_is_not_there_ends_with_4(folder):
    assert "cuda" in folder.quantize(UNSUPPORTED, "--device", "cuda").stderr
    assert not folder.out.exists()
    expect(UNSUPPORTED, "run", folder.model, "--input", folder.calib, "-o", folder / "y.npz", "--device", "cuda")


# Paths

@pytest.mark.parametrize("command", ["quantize", "optimize", "calibrate"])
def test_a_missing_model_ends_with_7(folder, command):
    assert "nowhere.onnx" in expect(IO, command, folder / "nowhere.onnx", "--calib", folder.calib, "-o", folder.out).stderr


def test_a_text_file_is_not_a_model(folder):
    for command in (["inspect"], ["optimize", "-o", folder.out]):
        assert "README.md" in expect(MALFORMED, command[0], ROOT / "README.md", *command[1:]).stderr


def test_the_output_may_not_be_the_model(folder):
    before = folder.model.read_bytes()
    for path in (folder.model, folder / "." / "model.onnx"):
        expect(USAGE, "quantize", folder.model, "--calib", folder.calib, "-o", path)
    (folder / "link.onnx").symlink_to(folder.model)
    expect(USAGE, "quantize", folder.model, "--calib", folder.calib, "-o", folder / "link.onnx")
    assert folder.model.read_bytes() == before


@pytest.mark.parametrize("place", ["missing/out.onnx", "", "model.onnx/out.onnx"], ids=["missing folder", "a folder", "a file as folder"])
@pytest.mark.parametrize("command", ["quantize", "optimize", "calibrate"])
def test_an_output_that_cannot_be_written_is_told_before_the_work_begins(folder, command, place):
    done = expect(IO, command, folder.model, "--calib", folder.calib, "-o", folder / place)
    assert "samples in" not in done.stderr
    assert folder.files() == ["calib.npz", "model.onnx"]


def test_a_report_folder_that_cannot_be_made_is_told_before_the_work_begins(folder):
    done = folder.quantize(IO, "--report", folder.model / "report")
    assert "samples in" not in done.stderr
    assert not folder.out.exists()


# Recipes

def test_a_misspelled_recipe_names_the_nearest(folder):
    assert "'int8'" in folder.quantize(USAGE, "--recipe", "int9").stderr


def test_a_recipes_unknown_key_is_told_by_file_line_and_column(folder):
    path = folder.write("mine.yaml", "version: 1\nname: mine\ncalibrate:\n  metod: entropy\nsteps:\n  - remove_dead\n")
    done = folder.quantize(USAGE, "--recipe", path)
    assert f"{path}:4:3: " in done.stderr and "'method'" in done.stderr


@pytest.mark.parametrize("change, told", [("calibrate.metod=entropy", "'method'"), ("calibrate.method=entropi", "'entropy'"), ("calibrate.samples=many", "samples"),
                                          ("nonsense", "path=value"), ("gates.min_sqnr=3", "'min_sqnr_db'"), ("target=ort-gpu", "'ort-cpu'")])
def test_a_wrong_set_is_told_with_the_nearest_name(folder, change, told):
    done = folder.quantize(USAGE, "--set", change)
    assert f"--set {change}" in done.stderr and told in done.stderr


def test_every_built_in_recipe_is_listed_and_its_shown_form_reads_back(folder):
    listed = [line.split()[0] for line in expect(OK, "recipe", "list").stdout.splitlines()]
    assert sorted(listed) == RECIPES
    for name in listed:
        shown = expect(OK, "recipe", "show", name).stdout
        path = folder.write(f"{name}.yaml", shown)
        expect(OK, "recipe", "check", path)
        assert expect(OK, "recipe", "show", path).stdout == shown


def test_the_recipe_schema_is_the_published_one():
    assert json.loads(expect(OK, "recipe", "schema").stdout) == json.loads((ROOT / "docs/recipe.schema.json").read_text())


def test_passes_lists_every_step_of_every_recipe():
    listed = expect(OK, "passes").stdout
    for name in ("fold_constants", "fuse_batchnorm", "quantize_int8", "convert_float16", "lower_storage"):
        assert f"{name} " in listed


# quantize and optimize

def scores(model, inputs):
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)[0]


def test_quantize_writes_a_standard_model_that_agrees(folder):
    folder.quantize(OK, model=DIGITS / "model.onnx", calib=DIGITS / "calib.npz")
    onnx.checker.check_model(str(folder.out), full_check=True)
    data = np.load(DIGITS / "eval.npz")
    wanted, got = scores(DIGITS / "model.onnx", {"image": data["image"]}), scores(folder.out, {"image": data["image"]})
    assert np.mean(got.argmax(1) == data["label"]) >= np.mean(wanted.argmax(1) == data["label"]) - 0.005
    assert folder.out.stat().st_size < 0.4 * (DIGITS / "model.onnx").stat().st_size


def test_the_same_input_gives_the_same_bytes_whatever_the_threads_and_batch(folder):
    files = []
    for more in (["--threads", "1"], ["--threads", "2"], ["--batch", "8"]):
        folder.quantize(OK, *more)
        files.append(folder.out.read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("name", ["digits_cnn", "photo_patches", "text_language"])
def test_optimize_keeps_the_outputs_in_onnx_runtime(folder, name):
    sample = ROOT / "sample_models" / name
    expect(OK, "optimize", sample / "model.onnx", "-o", folder.out)
    with np.load(sample / "calib.npz") as data:
        inputs = {key: data[key][:8] for key in data if key not in ("label", "labels")}
    wanted, got = scores(sample / "model.onnx", inputs), scores(folder.out, inputs)
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    assert len(onnx.load(folder.out).graph.node) <= len(onnx.load(sample / "model.onnx").graph.node)


def test_json_follows_the_published_schema(folder):
    validator = Draft202012Validator(json.loads((ROOT / "docs/report.schema.json").read_text()))
    done = folder.quantize(OK, "--json", "--report", folder / "report", "--set", "gates.min_sqnr_db=5")
    assert done.stderr == ""
    report = json.loads(done.stdout)
    validator.validate(report)
    assert report == json.loads((folder / "report/report.json").read_text())
    validator.validate(json.loads(expect(OK, "optimize", folder.model, "-o", folder.out, "--json").stdout))
    validator.validate(json.loads(expect(OK, "validate", folder.model, folder.out, "--eval", folder.calib, "--json").stdout))


def test_progress_is_plain_lines_where_there_is_no_terminal(folder):
    done = folder.quantize(OK)
    assert "calibrate: 16 samples" in done.stderr
    assert "\r" not in done.stderr and "\033" not in done.stderr + done.stdout


@pytest.mark.parametrize("command, told", [
    (["quantize", "--recipe", "int4-gptq", "--set", "quantize_weights.min_weights=1"], r"quantize_weights: 2 layers rounded in"),
    (["quantize", "--recipe", "int4-awq", "--set", "quantize_weights.min_weights=1"], r"quantize_weights: 2 inputs of products scaled in"),
    (["quantize", "--set", "quantize_int8.activations=static", "--set", "quantize_int8.rounding=adaround", "--set", "quantize_int8.iterations=10"], r"quantize_int8: 2 blocks learned in"),
    (["sensitivity"], r"sensitivity: 2 layers probed in"),
], ids=["gptq", "awq", "learned", "sensitivity"])
def test_long_passes_say_how_far_they_are_in_plain_lines(folder, command, told):
    done = expect(OK, command[0], folder.model, "--calib", folder.calib, "-o", folder.out, *command[1:])
    assert re.search(rf"^infopt: {told} [\d.]+ s$", done.stderr, re.M), done.stderr
    assert "\r" not in done.stderr and "\033" not in done.stderr + done.stdout
    assert re.search(told, expect(OK, command[0], folder.model, "--calib", folder.calib, "-o", folder.out, "--json", *command[1:]).stderr) is None


# calibrate

def test_saved_statistics_give_the_same_bytes_as_a_run(folder):
    folder.quantize(OK)
    direct = folder.out.read_bytes()
    statistics = folder / "statistics"
    expect(OK, "calibrate", folder.model, "--calib", folder.calib, "-o", statistics)
    done = folder.quantize(OK, "--statistics", statistics)
    assert "calibrate:" not in done.stderr, "no second run is needed"
    assert folder.out.read_bytes() == direct


def test_saved_statistics_serve_another_method(folder):
    folder.quantize(OK, "--set", "calibrate.method=entropy")
    direct = folder.out.read_bytes()
    expect(OK, "calibrate", folder.model, "--calib", folder.calib, "-o", folder / "statistics")
    folder.quantize(OK, "--statistics", folder / "statistics", "--set", "calibrate.method=entropy")
    assert folder.out.read_bytes() == direct


def test_statistics_of_another_model_or_of_other_data_are_refused(folder):
    statistics = folder / "statistics"
    expect(OK, "calibrate", folder.model, "--calib", folder.calib, "-o", statistics)
    other = folder.save(two_layers(seed=5))
    assert "another model" in folder.quantize(USAGE, "--statistics", statistics, model=other).stderr
    data = folder.npz("other.npz", x=batch(seed=9))
    assert "other data" in folder.quantize(USAGE, "--statistics", statistics, calib=data).stderr
    folder.quantize(USAGE, "--statistics", statistics, "--samples", "4")
    folder.quantize(MALFORMED, "--statistics", folder.write("noise", os.urandom(300)))
    assert not folder.out.exists()


# run

def test_run_gives_what_onnx_runtime_gives(folder):
    expect(OK, "run", folder.model, "--input", folder.calib, "-o", folder / "y.npz")
    np.testing.assert_allclose(np.load(folder / "y.npz")["y"], scores(folder.model, {"x": batch()}), rtol=1e-4, atol=1e-5)


def make_test_data(folder, error=0.0, tolerance=None):
    data = folder / "data"
    for k in range(2):
        one = data / f"test_data_set_{k}"
        one.mkdir(parents=True)
        x = batch(3, seed=k)
        y = scores(folder.model, {"x": x})
        y[1, 2] += error
        (one / "input_0.pb").write_bytes(numpy_helper.from_array(x, "x").SerializeToString())
        (one / "output_0.pb").write_bytes(numpy_helper.from_array(y, "y").SerializeToString())
    if tolerance:
        (data / "tolerance.txt").write_text(tolerance)
    return data


def test_test_data_passes_and_fails_by_its_tolerance(folder):
    expect(OK, "run", folder.model, "--test-data", make_test_data(folder))
    shutil.rmtree(folder / "data")
    data = make_test_data(folder, error=0.05)
    done = expect(GATE, "run", folder.model, "--test-data", data)
    assert "output 'y'" in done.stderr and "test_data_set_1" in done.stderr
    (data / "tolerance.txt").write_text("0.001 0.1\n")
    expect(OK, "run", folder.model, "--test-data", data)
    (data / "tolerance.txt").write_text("some\n")
    assert "tolerance.txt" in expect(MALFORMED, "run", folder.model, "--test-data", data).stderr


def test_an_operator_that_is_not_known_is_named_by_run_and_kept_by_optimize(folder):
    model = two_layers()
    model.graph.node.append(helper.make_node("Zoom", ["y"], ["z"], "lens", domain="com.example"))
    model.graph.output[0].name = "z"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    path = folder.save(model)
    done = expect(UNSUPPORTED, "run", path, "--input", folder.calib, "-o", folder / "y.npz")
    assert "Zoom" in done.stderr and not (folder / "y.npz").exists()
    expect(OK, "optimize", path, "-o", folder.out)
    assert "Zoom" in [n.op_type for n in onnx.load(folder.out).graph.node]


# bench and inspect

def test_bench_says_what_it_measured(folder):
    figures = json.loads(expect(OK, "bench", folder.model, "--data", folder.calib, "--runs", "5", "--json").stdout)
    batch = figures["batches"][0]
    assert batch["runs"] == 5 and figures["threads"] == 1 and 0 < batch["median_ms"] <= batch["p99_ms"]
    assert "Gemm" in expect(OK, "bench", folder.model, "--data", folder.calib, "--runs", "2", "--profile").stdout


def test_inspect_names_inputs_outputs_and_operators(folder):
    text = expect(OK, "inspect", folder.model).stdout
    for part in ("x: float32[N,64]", "y: float32[N,10]", "2 Gemm", "1 Relu", "opset 17"):
        assert part in text


def test_inspect_shows_the_plan_of_a_quantized_convolution(tmp_path):
    weights = {"wq": np.ones((4, 3, 3, 3), np.int8), "ws": np.full(4, 0.01, np.float32), "s": np.float32(0.1), "z": np.uint8(3)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "quantize"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "ws"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["c"], "conv"),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "s", "z"], ["yq"], "requantize"),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["y"], "out"),
    ]
    path = tmp_path / "m.onnx"
    onnx.save(model_of(nodes, [("x", [1, 3, 8, 8])], [("y", None)], weights), path)
    text = expect(OK, "inspect", path, "--plan").stdout
    assert "Conv+Relu+QuantizeLinear: int8 convolution" in text
    steps = json.loads(expect(OK, "inspect", path, "--plan", "--json").stdout)["steps"]
    assert [s["node"] for s in steps] == ["quantize", "conv", "out"]
    assert sorted(steps[1]["covers"]) == ["relu", "requantize"]


def test_runs_give_the_same_bytes_for_every_number_of_threads(tmp_path):
    for model in ("digits_cnn", "photo_patches", "text_language"):
        folder = ROOT / "sample_models" / model
        outputs = []
        for threads in (1, 2, 3):
            out = tmp_path / f"{model}{threads}.npz"
            expect(OK, "run", folder / "model.onnx", "--input", next(folder.glob("*calib*.npz")), "--samples", 2, "-o", out, "--threads", threads)
            outputs.append({k: v.tobytes() for k, v in np.load(out).items()})
        assert outputs[0] == outputs[1] == outputs[2]


def test_inspect_as_json(folder):
    found = json.loads(expect(OK, "inspect", folder.model, "--json").stdout)
    assert found["operators"] == {"Gemm": 2, "Relu": 1} and found["nodes"] == 3 and found["layers"] == 2
    assert found["inputs"] == [{"name": "x", "type": "float32", "shape": ["N", 64]}]
    assert found["opsets"] == {"": 17} and found["without_kernel"] == []
    assert found["constants"]["float32"] == {"count": 4, "bytes": (64 * 96 + 96 + 96 * 10 + 10) * 4}
    assert found["bytes"] == folder.model.stat().st_size
