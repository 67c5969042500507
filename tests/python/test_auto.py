"""`infopt quantize --recipe auto`: the first attempt that meets the gates, what was tried, and the plain recipe that makes the same bytes."""
import json
import pathlib
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import onnx
import pytest
from onnx import helper

from support import DIGITS, GATE, INFOPT, OK, USAGE, expect, model_of

QUANTIZED = """
import sys, onnx
model = onnx.load(sys.argv[1])
quantized = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DynamicQuantizeLinear")]
"""


def auto(folder, code, *args):
    return expect(code, "quantize", folder / "m.onnx", "--calib", folder / "calib.npz", "--recipe", "auto", "-o", folder / "out.onnx", "--report", folder / "report", *args)


def report(folder):
    return json.loads((folder / "report" / "report.json").read_text())


def engine(folder, text):
    path = folder / "engine.py"
    path.write_text(text)
    return f"{sys.executable} {path} {{model}}"


def ops_of(path):
    return [n.op_type for n in onnx.load(path).graph.node]


def same_bytes_by_recipe(folder, *args):
    expect(OK, "quantize", folder / "m.onnx", "--calib", folder / "calib.npz", "--recipe", folder / "report" / "recipe.yaml", "-o", folder / "again.onnx", *args)
    return (folder / "again.onnx").read_bytes() == (folder / "out.onnx").read_bytes()


def test_the_cheapest_is_enough_where_it_meets_the_gates(case):
    auto(case, OK, "--set", "gates.min_sqnr_db=10")
    search = report(case)["search"]
    assert len(search["attempts"]) == 1 and search["chosen"] == 0 and not search["by_measurement"]
    expect(OK, "quantize", case / "m.onnx", "--calib", case / "calib.npz", "-o", case / "int8.onnx")
    assert (case / "int8.onnx").read_bytes() == (case / "out.onnx").read_bytes()


def test_it_climbs_until_the_gates_are_met_and_the_recipe_makes_the_same_bytes(case):
    done = auto(case, OK, "--set", "gates.min_sqnr_db=48")
    search = report(case)["search"]
    chosen = search["attempts"][search["chosen"]]
    assert search["chosen"] == len(search["attempts"]) - 1 > 0
    assert chosen["gates_not_met"] == [] and chosen["sqnr_db"] >= 48
    assert all("min_sqnr_db" in a["gates_not_met"] for a in search["attempts"][:-1] if "failure" not in a)
    assert same_bytes_by_recipe(case)
    assert "infopt: 1: int8: " in done.stderr and "not met" in done.stderr
    assert "What was tried" in (case / "report" / "report.md").read_text() and "tried" in done.stdout
    suite = ElementTree.parse(case / "report" / "junit.xml").getroot().find("testsuite")
    assert chosen["name"] in suite.find("system-out").text


def test_an_attempt_keeps_only_what_helped_before(case):
    auto(case, OK, "--set", "gates.min_sqnr_db=48")
    best, last = None, None
    for attempt in report(case)["search"]["attempts"]:
        if "failure" in attempt:
            continue
        if best and attempt["changed"].startswith(("calibrate", "equalize", "smooth", "quantize_int8")):
            assert set(best["name"].split(", ")) - {"mse", "entropy", "percentile", "adaround", "reconstruct"} <= set(attempt["name"].split(", "))
        if best is None or attempt["sqnr_db"] > best["sqnr_db"]:
            best = attempt
    assert best["gates_not_met"] == []


def test_gates_that_cannot_be_met_end_with_their_code_and_the_nearest(case):
    done = auto(case, GATE, "--set", "gates.max_size_ratio=0.01")
    search = report(case)["search"]
    sizes = [a["size_ratio"] for a in search["attempts"] if a["sqnr_db"] >= 20]
    assert search["attempts"][search["chosen"]]["size_ratio"] == min(sizes)
    assert "Nothing that is left to try meets the gates; nearest: attempt" in done.stdout
    assert (case / "out.onnx").exists() and report(case)["optimized"]["path"] == str(case / "out.onnx")
    assert sorted(p.name for p in case.iterdir()) == ["calib.npz", "m.onnx", "out.onnx", "report"]


def test_no_output_on_failure_leaves_none(case):
    auto(case, GATE, "--set", "gates.max_size_ratio=0.01", "--no-output-on-failure")
    assert sorted(p.name for p in case.iterdir()) == ["calib.npz", "m.onnx", "report"]


def test_without_a_gate_on_time_every_run_chooses_the_same(case):
    found = []
    for threads in (1, 2):
        auto(case, OK, "--set", "gates.min_sqnr_db=48", "--threads", threads)
        found.append((report(case)["search"], (case / "out.onnx").read_bytes()))
    assert found[0] == found[1]


def test_an_engine_in_which_integers_are_slow_gets_float_arithmetic(case):
    auto(case, OK, "--set", "quantize_int8.activations=static", "--engine", engine(case, QUANTIZED + "print(2 if quantized else 1)"))
    found = report(case)
    assert found["search"]["by_measurement"] and found["measured"]["latency"]["ratio"] == 1
    assert [g["limit"] for g in found["gates"] if g["name"] == "max_slowdown"] == [1]
    assert "QuantizeLinear" not in ops_of(case / "out.onnx") and found["size_ratio"] < 0.5
    assert found["measured"]["attempts"][0]["latency_ratio"] == 2


# Turn after turn; what is quantized takes `by` as long.
TURNS = """
import pathlib
turns = pathlib.Path(__file__).with_name("turns" + ("q" if quantized else "f"))
turn = len(turns.read_text()) if turns.exists() else 0
turns.write_text("." * (turn + 1))
print(([100, 103, 98, 104, 101, 97, 99] * 99)[turn + (3 if quantized else 0)] * (BY if quantized else 1))
"""


@pytest.mark.parametrize("by, slower", [(1, False), (1.03, False), (1.08, True)])
def test_what_an_engines_times_scatter_by_is_no_slowdown(case, by, slower):
    auto(case, OK, "--set", "quantize_int8.activations=static", "--set", "gates.min_sqnr_db=10", "--engine", engine(case, QUANTIZED + TURNS.replace("BY", str(by))))
    first = report(case)["search"]["attempts"][0]
    assert ("max_slowdown" in first["gates_not_met"]) == slower
    assert ("QuantizeLinear" in ops_of(case / "out.onnx")) != slower


def test_a_little_slower_where_times_do_not_scatter_is_slower(case):
    auto(case, OK, "--set", "quantize_int8.activations=static", "--set", "gates.min_sqnr_db=10", "--engine", engine(case, QUANTIZED + "print(1.02 if quantized else 1)"))
    assert report(case)["search"]["attempts"][0]["gates_not_met"] == ["max_slowdown"]


def test_only_the_kind_of_layer_that_is_slow_goes_back_to_float(tmp_path):
    rng = np.random.default_rng(3)
    weights = {"w1": rng.standard_normal((32, 3, 3, 3)), "w2": rng.standard_normal((32, 1, 3, 3)), "w3": rng.standard_normal((32, 32, 1, 1)), "w4": rng.standard_normal((32 * 64, 10))}
    nodes = [helper.make_node("Conv", ["x", "w1"], ["a"], "stem", pads=[1] * 4), helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Conv", ["b", "w2"], ["c"], "depth", pads=[1] * 4, group=32),
             helper.make_node("Relu", ["c"], ["d"]), helper.make_node("Conv", ["d", "w3"], ["e"], "point"), helper.make_node("Flatten", ["e"], ["f"]), helper.make_node("MatMul", ["f", "w4"], ["y"], "head")]
    onnx.save(model_of(nodes, [("x", ["N", 3, 8, 8])], [("y", ["N", 10])], {k: v.astype(np.float32) for k, v in weights.items()}), tmp_path / "m.onnx")
    np.savez(tmp_path / "calib.npz", x=rng.standard_normal((8, 3, 8, 8)).astype(np.float32))
    slow = """
import sys, onnx
graph = onnx.load(sys.argv[1]).graph
maker = {o: n for n in graph.node for o in n.output}
def integer(n):
    return all(i in maker and maker[i].op_type == "DequantizeLinear" for i in n.input[:2])
time = 10
for n in graph.node:
    if n.op_type in ("Conv", "MatMul") and integer(n):
        time += 5 if any(a.name == "group" and a.i > 1 for a in n.attribute) else -1
print(time)
"""
    auto(tmp_path, OK, "--target", "generic", "--set", "gates.min_sqnr_db=10", "--engine", engine(tmp_path, slow))
    found = report(tmp_path)
    chosen = found["search"]["attempts"][found["search"]["chosen"]]["name"]
    assert chosen == "int8, in float: depthwise"
    assert {layer["node"]: layer["form"] for layer in found["layers"] if "depth" in layer["node"]} == {"depth": "float32"}
    assert all(layer["form"] == "int8 static" for layer in found["layers"] if "depth" not in layer["node"])
    assert found["measured"]["latency"]["ratio"] < 1


def test_what_the_engine_cannot_run_is_an_attempt_that_failed(case):
    auto(case, OK, "--set", "quantize_int8.activations=static", "--engine", engine(case, QUANTIZED + "sys.exit(3) if quantized else print(1)"))
    attempts = report(case)["search"]["attempts"]
    assert "the engine can't run what the recipe makes" in attempts[0]["failure"] and "gates_not_met" not in attempts[0]
    assert "QuantizeLinear" not in ops_of(case / "out.onnx")


@pytest.mark.parametrize("command, told", [("false {model}", "ended with 1"), ("echo soon {model}", "a number was expected"), ("echo 0; true {model}", "above 0"), ("no-such-engine {model}", "ended with 127"),
                                            ("echo 1", "needs {model}")])
def test_an_engine_that_does_not_answer_is_told_before_the_work_begins(case, command, told):
    done = expect(USAGE, "quantize", case / "m.onnx", "--calib", case / "calib.npz", "--recipe", "auto", "-o", case / "out.onnx", "--engine", command + (" 2> /dev/null" if "{model}" in command else ""))
    assert told in done.stderr and "samples" not in done.stderr
    assert sorted(p.name for p in case.iterdir()) == ["calib.npz", "m.onnx"]


def test_a_gate_without_its_figure_is_told_after_one_attempt(case):
    done = auto(case, GATE, "--set", "gates.max_metric_drop=0.01")
    assert len(report(case)["search"]["attempts"]) == 1
    assert "no attempt can meet max_metric_drop" in done.stdout and "eval.metric" in done.stdout


def test_time_runs_out_after_the_first_attempt(case):
    done = auto(case, GATE, "--set", "gates.min_sqnr_db=48", "--seconds", "0.0001")
    assert len(report(case)["search"]["attempts"]) == 1 and "Out of time" in done.stdout


def test_the_recipes_own_steps_groups_and_metric_count(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("version: 1\nsearch: auto\nsteps: [fuse_batchnorm, quantize_int8, lower_storage]\n"
                      "groups:\n  - name: all\n    weights: float32\n    activations: float32\neval:\n  metric: top1\ngates:\n  max_metric_drop: 0.01\n")
    expect(OK, "quantize", DIGITS / "model.onnx", "--calib", DIGITS / "calib.npz", "--eval", DIGITS / "eval.npz", "--recipe", recipe, "-o", tmp_path / "out.onnx", "--report", tmp_path / "report")
    found = report(tmp_path)
    assert found["search"]["attempts"][0]["metric_drop"] == found["metrics"][0]["drop"]
    assert [p["name"] for p in found["passes"]] == ["fuse_batchnorm", "quantize_int8", "lower_storage"]
    assert {layer["form"] for layer in found["layers"]} == {"float32"}


def test_wrong_use_is_told_in_a_line(case):
    assert "has none" in auto(case, USAGE, "--set", "gates.min_sqnr_db=null").stderr
    assert "--recipe auto" in expect(USAGE, "quantize", case / "m.onnx", "--calib", case / "calib.npz", "-o", case / "out.onnx", "--seconds", 3).stderr
    assert "infopt quantize" in expect(USAGE, "optimize", case / "m.onnx", "-o", case / "out.onnx", "--recipe", "auto").stderr
    assert "quantize_int8" in auto(case, USAGE, "--set", "quantize_int8=null").stderr
    assert "--calib" in expect(USAGE, "quantize", case / "m.onnx", "-o", case / "out.onnx", "--recipe", "auto").stderr


def test_interrupted_it_leaves_nothing(case):
    waiting = case / "waiting"
    command = engine(case, f"import pathlib, sys, time\nif 'auto' in sys.argv[1]:\n    pathlib.Path({str(waiting)!r}).touch()\n    time.sleep(20)\nprint(1)")
    child = subprocess.Popen([INFOPT, "quantize", case / "m.onnx", "--calib", case / "calib.npz", "--recipe", "auto", "-o", case / "out.onnx", "--engine", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    end = time.monotonic() + 60
    while time.monotonic() < end and not waiting.exists():
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    assert child.wait(timeout=60) == 143
    assert sorted(p.name for p in pathlib.Path(case).iterdir()) == ["calib.npz", "engine.py", "m.onnx", "waiting"]


def test_an_engines_time_is_what_gates_of_any_recipe_see(case):
    command = engine(case, QUANTIZED + "print(3 if quantized else 1)")
    args = ["quantize", case / "m.onnx", "--calib", case / "calib.npz", "-o", case / "out.onnx", "--engine", command]
    expect(GATE, *args, "--set", "gates.max_latency_ratio=2", "--set", "quantize_int8.activations=static")
    expect(OK, *args, "--set", "gates.max_latency_ratio=2", "--set", "quantize_int8.activations=none")
