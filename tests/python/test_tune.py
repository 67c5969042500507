"""`infopt tune`: what it finds meets the targets, is a plain recipe, and an interrupted search goes on."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest

from support import DIGITS, GATE, INFOPT, OK, ROOT, USAGE, expect


def tune(folder, code, *args, out="t"):
    return expect(code, "tune", folder / "m.onnx", "--calib", folder / "calib.npz", "-o", folder / out, *args)


def trials(folder, out="t"):
    return [json.loads(line) for line in (folder / out / "trials.jsonl").read_text().splitlines()[1:]]


def test_the_best_meets_the_targets_and_its_recipe_makes_the_same_bytes(case):
    done = tune(case, OK, "--min-sqnr-db", 30, "--max-size-ratio", 0.6, "--minimize", "size", "--trials", 16)
    assert "best: " in done.stdout
    expect(OK, "quantize", case / "m.onnx", "--calib", case / "calib.npz", "--recipe", case / "t" / "recipe.yaml", "-o", case / "again.onnx")
    assert (case / "again.onnx").read_bytes() == (case / "t" / "model.onnx").read_bytes()
    met = [t for t in trials(case) if t.get("violation") == 0]
    size = (case / "again.onnx").stat().st_size / (case / "m.onnx").stat().st_size
    assert size == pytest.approx(min(t["size_ratio"] for t in met))
    assert all(t["sqnr_db"] >= 30 and t["size_ratio"] <= 0.6 for t in met)


def test_targets_that_cannot_be_met_end_with_the_gates_code_and_the_nearest(case):
    done = tune(case, GATE, "--min-sqnr-db", 100, "--max-size-ratio", 0.1, "--trials", 3)
    assert "no recipe met the targets; nearest: " in done.stdout
    assert (case / "t" / "model.onnx").exists() and (case / "t" / "recipe.yaml").exists()


def test_a_second_run_goes_on_where_the_first_ended(case):
    tune(case, OK, "--min-sqnr-db", 10, "--trials", 3)
    first = trials(case)
    done = tune(case, OK, "--min-sqnr-db", 10, "--trials", 5)
    assert "3 of them resumed" in done.stdout
    assert trials(case)[:3] == first and len(trials(case)) == 5
    assert len({t["recipe"] for t in trials(case)}) == 5


def test_the_same_seed_tries_the_same_points(case):
    for out in ("a", "b"):
        tune(case, OK, "--min-sqnr-db", 10, "--trials", 8, out=out)
    measured = {"latency_ratio", "latency_ms", "seconds", "violation"}
    a, b = ([{k: v for k, v in t.items() if k not in measured} for t in trials(case, out)] for out in ("a", "b"))
    assert a[:6] == b[:6]


def test_interrupted_it_keeps_the_best_so_far(case):
    log = case / "t" / "trials.jsonl"
    child = subprocess.Popen([INFOPT, "tune", case / "m.onnx", "--calib", case / "calib.npz", "-o", case / "t", "--min-sqnr-db", "10"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and (not log.exists() or len(log.read_text().splitlines()) < 4):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=60) == 130
    onnx.checker.check_model(str(case / "t" / "model.onnx"))
    expect(OK, "recipe", "check", case / "t" / "recipe.yaml")
    assert "resumed" in tune(case, OK, "--min-sqnr-db", 10, "--trials", len(trials(case))).stdout


def test_the_first_that_meets_the_targets_is_enough_where_asked(case):
    tune(case, OK, "--min-sqnr-db", 10, "--first")
    assert trials(case)[-1]["violation"] == 0
    assert all(t.get("violation", 1) > 0 for t in trials(case)[:-1])


def test_an_engine_says_the_milliseconds(case):
    engine = case / "engine.py"
    engine.write_text("import os, sys\nprint('warming up')\nprint(os.path.getsize(sys.argv[1]) / 1000)\n")
    tune(case, OK, "--min-sqnr-db", 10, "--trials", 2, "--engine", f"{sys.executable} {engine} {{model}}")
    for t in trials(case):
        assert t["latency_ratio"] == pytest.approx(t["size_ratio"], rel=1e-6)


def test_the_shipped_engine_prints_milliseconds(case):
    done = subprocess.run([sys.executable, ROOT / "tools" / "engines" / "onnxruntime_latency.py", case / "m.onnx", "--seconds", "0.05"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 1000


def test_the_shipped_engine_takes_rows_and_whole_inputs(case):
    width = onnx.load(case / "m.onnx").graph.input[0].type.tensor_type.shape.dim[1].dim_value
    for shape in [(3, width), (3, 1, width)]:
        np.savez(case / "rows.npz", x=np.zeros(shape, np.float32))
        subprocess.run([sys.executable, ROOT / "tools" / "engines" / "onnxruntime_latency.py", case / "m.onnx", "--data", case / "rows.npz", "--seconds", "0.05"], capture_output=True, check=True)


def test_an_accuracy_target_is_held_on_labelled_data(tmp_path):
    expect(OK, "tune", DIGITS / "model.onnx", "--calib", DIGITS / "calib.npz", "--eval", DIGITS / "eval.npz", "--set", "eval.metric=top1", "--max-drop", "0.01",
           "--max-size-ratio", "0.6", "--trials", "3", "-o", tmp_path / "t")
    log = [json.loads(line) for line in (tmp_path / "t" / "trials.jsonl").read_text().splitlines()[1:]]
    assert any(t["metric_drop"] <= 0.01 and t["violation"] == 0 for t in log)


def test_wrong_use_is_told_in_a_line(case):
    assert "needs a target" in tune(case, USAGE).stderr
    tune(case, OK, "--min-sqnr-db", 10, "--trials", 1)
    assert "another folder" in tune(case, USAGE, "--min-sqnr-db", 20, "--trials", 1).stderr
    assert "engine" in tune(case, USAGE, "--min-sqnr-db", 10, "--trials", 2, "--engine", "false", out="e").stderr
