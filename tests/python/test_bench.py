"""infopt bench: what it measures and prints, and what it refuses. Figures of time are checked for sense, never for size."""
import json

import numpy as np
import pytest
from onnx import helper

from support import IO, MALFORMED, OK, USAGE, expect, model_of

QUICK = ("--warmup", "1", "--runs", "3")


def bench(*args):
    return json.loads(expect(OK, "bench", *args, *QUICK, "--json").stdout)


def relu(folder, shape, name="relu.onnx"):
    return folder.save(model_of([helper.make_node("Relu", ["x"], ["y"], "only")], [("x", shape)], [("y", shape)]), name)


def test_every_batch_has_its_figures_in_ascending_order(folder):
    figures = bench(folder.model, "--input", folder.calib, "--batch", "4,1,2,4")
    assert [b["batch"] for b in figures["batches"]] == [1, 2, 4]
    for b in figures["batches"]:
        assert b["runs"] == 3
        assert 0 < b["min_ms"] <= b["median_ms"] <= b["p90_ms"] <= b["p99_ms"] == b["max_ms"]
        assert b["items_per_second"] > 0
    assert "gain_per_doubling" not in figures["batches"][0] and "gain_per_doubling" in figures["batches"][1]
    assert figures["knee"]["batch"] in (1, 2, 4)
    assert figures["load_ms"] > 0 and figures["first_run_ms"] > 0
    assert figures["memory_peak_bytes"] >= figures["memory_before_bytes"] > 0


def test_streams_run_side_by_side(folder):
    figures = bench(folder.model, "--input", folder.calib, "--streams", "2")
    assert figures["streams"] == 2 and figures["batches"][0]["runs"] == 6


def test_inputs_are_made_up_from_declared_shapes(folder):
    assert bench(folder.model)["input"] == "made up"
    mixed = model_of(
        [helper.make_node("Gather", ["table", "i"], ["g"]), helper.make_node("Where", ["m", "g", "z"], ["y"])],
        [("i", ["N", "L"], 7), ("m", ["N", "L"], 9)], [("y", ["N", "L"])],
        {"table": np.ones(4, np.float32), "z": np.zeros(1, np.float32)})
    model = folder.save(mixed)
    bench(model, "--dim", "L=5", "--batch", "1,3")
    bench(model, "--shape", "i=B,6", "--shape", "m=Bx6", "--batch", "2")
    assert "--dim L=SIZE" in expect(USAGE, "bench", model).stderr


def test_the_batch_of_a_fixed_model_is_its_own(folder):
    model = relu(folder, [4, 8])
    assert bench(model)["batches"][0]["batch"] == 4
    assert bench(model, "--input", folder.npz("x.npz", x=np.zeros((9, 8), np.float32)))["batches"][0]["batch"] == 4
    assert "fixed at 4" in expect(USAGE, "bench", model, "--batch", "8").stderr


def test_a_latency_target_names_the_largest_batch_within(folder):
    assert bench(folder.model, "--batch", "1,2", "--latency-target", "1e6")["latency_target"] == {"p99_ms": 1e6, "largest_batch": 2}
    assert bench(folder.model, "--batch", "1,2", "--latency-target", "1e-9")["latency_target"]["largest_batch"] is None
    text = expect(OK, "bench", folder.model, "--batch", "1,2", "--latency-target", "1e6", *QUICK).stdout
    assert "knee" in text and "batch 2 is the largest" in text


def test_the_profile_adds_up(folder):
    p = bench(folder.model, "--profile", "--top", "1")["profile"]
    assert {row["op"] for row in p["operators"]} >= {"Gemm"}
    assert len(p["nodes"]) == 1 and p["nodes"][0]["node"] in ("first", "middle", "second")
    assert sum(row["share"] for row in p["operators"]) == pytest.approx(1, abs=1e-3)
    assert p["nodes_ms"] <= p["run_ms"] + 1e-3
    assert all(row["calls"] >= 1 for row in p["operators"])


def test_the_trace_of_two_streams_has_two_threads(folder):
    trace = folder / "trace.json"
    bench(folder.model, "--trace", trace, "--streams", "2")
    runs = [e for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "X"]
    assert len({e["tid"] for e in runs}) == 2
    assert [e["name"] for e in runs].count("second") == 6


def test_the_trace_holds_three_runs_of_every_node(folder):
    trace = folder / "trace.json"
    bench(folder.model, "--trace", trace)
    events = json.loads(trace.read_text())["traceEvents"]
    runs = [e for e in events if e["ph"] == "X"]
    assert {e["name"] for e in runs} >= {"first", "second"}
    assert [e["name"] for e in runs].count("second") == 3
    assert all(e["dur"] >= 0 and e["ts"] >= 0 and e["args"]["op"] == e["cat"] for e in runs)


@pytest.mark.parametrize("arrivals", ["poisson", "fixed"])
def test_an_open_loop_serves_what_comes(folder, arrivals):
    loop = bench(folder.model, "--batch", "4", "--rate", "50,100", "--duration", "0.2", "--max-wait", "1", "--arrivals", arrivals)["open_loop"]
    assert loop["arrivals"] == arrivals
    assert [x["rate"] for x in loop["loads"]] == [50, 100]
    for x in loop["loads"]:
        assert x["largest_batch"] == 4
        assert 0 < x["served"] <= x["requests"]
        assert 0 < x["median_ms"] <= x["p99_ms"]
        assert 1 <= x["mean_batch"] <= 4
    if arrivals == "fixed":
        assert [x["requests"] for x in loop["loads"]] == [10, 20]


def test_the_same_seed_brings_the_same_requests(folder):
    def requests(seed):
        loop = bench(folder.model, "--rate", "300", "--duration", "0.3", "--seed", seed)["open_loop"]
        return loop["loads"][0]["requests"]
    assert requests(3) == requests(3)


def test_an_open_loop_prints_a_table(folder):
    text = expect(OK, "bench", folder.model, "--rate", "50", "--duration", "0.1", *QUICK).stdout
    assert "Poisson" in text and "achieved" in text


@pytest.mark.parametrize("arguments, told", [
    (["--shape", "xx=B,64"], "'xx'"),
    (["--shape", "x"], "NAME="),
    (["--shape", "x=B,6_4"], "'6_4'"),
    (["--shape", "x=B,"], "ends"),
    (["--dim", "M=3"], "there are: N"),
    (["--dim", "N=-3"], "'-3'"),
    (["--batch", "0"], "positive"),
    (["--batch", "1,many"], "'many'"),
    (["--rate", "0"], "positive"),
    (["--rate", "1e9"], "requests"),
    (["--max-wait", "3"], "--rate"),
    (["--rate", "5", "--arrivals", "late"], "late"),
    (["--runs", "3", "--seconds", "1"], "--seconds"),
    (["--shape", "x=3,64", "--batch", "2"], "write B"),
    (["--input", "d.npz", "--dim", "N=3"], "--dim"),
])
def test_wrong_usage_says_what(folder, arguments, told):
    assert told in expect(USAGE, "bench", folder.model, *arguments).stderr


def test_wrong_files_say_what(folder):
    assert "nowhere" in expect(IO, "bench", folder / "nowhere.onnx").stderr
    assert "nowhere" in expect(IO, "bench", folder.model, "--input", folder / "nowhere.npz").stderr
    assert "trace.json" in expect(IO, "bench", folder.model, "--trace", folder / "no" / "trace.json").stderr
    assert "'x'" in expect(MALFORMED, "bench", folder.model, "--input", folder.npz("y.npz", y=np.zeros((1, 64), np.float32))).stderr
    assert "'x'" in expect(MALFORMED, "bench", folder.model, "--shape", "x=B,65").stderr
    strings = model_of([helper.make_node("Identity", ["x"], ["y"])], [("x", ["N"], 8)], [("y", ["N"], 8)])
    assert "--input" in expect(USAGE, "bench", folder.save(strings)).stderr


def test_a_model_without_inputs_runs(folder):
    constant = model_of([helper.make_node("Relu", ["w"], ["y"])], [], [("y", [2])], {"w": np.ones(2, np.float32)})
    assert bench(folder.save(constant))["batches"][0]["batch"] == 1
