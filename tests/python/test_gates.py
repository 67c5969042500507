"""Every gate, broken alone, ends with exit code 8, is named everywhere, and the output is still written; met, it ends with 0."""
import json
import xml.etree.ElementTree as xml

import numpy as np
import pytest

from support import DIGITS, GATE, OK, USAGE, expect

# name: a limit that the digits model can't meet, one that it can't miss
GATES = {
    "max_metric_drop": (-1, 1),
    "min_sqnr_db": (300, 10),
    "min_cosine": (1, 0.9),
    "max_size_ratio": (0.001, 0.9),
    "max_latency_ms": (1e-6, 1e6),
    "max_latency_ratio": (1e-6, 1e6),
    "max_slowdown": (1e-6, 1e6),
    "min_speedup": (1e6, 1e-6),
    "max_memory_mb": (1e-3, 1e4),
    "min_integer_macs": (1, 0.5),
}


def quantize(code, folder, *more, eval_=DIGITS / "eval.npz"):
    return expect(code, "quantize", DIGITS / "model.onnx", "--calib", DIGITS / "calib.npz", "--samples", "8", "--eval", eval_, "-o", folder.out,
                  "--report", folder / "report", *more)


@pytest.fixture
def eval_(folder):
    """Labels and images of the first forty."""
    whole = np.load(DIGITS / "eval.npz")
    return folder.npz("eval.npz", **{name: whole[name][:40] for name in whole})


def settings(gate, limit):
    metric = ["--set", "eval.metric=top1"] if gate == "max_metric_drop" else []
    return ["--set", f"gates.{gate}={limit}", *metric]


def reported(folder):
    report = json.loads((folder / "report/report.json").read_text())
    cases = {case.get("name"): case.find("failure") for case in xml.parse(folder / "report/junit.xml").iter("testcase")}
    return report, (folder / "report/report.md").read_text(), cases


def test_the_table_of_gates_is_the_binarys():
    schema = json.loads(expect(OK, "recipe", "schema").stdout)
    assert set(schema["properties"]["gates"]["properties"]) == set(GATES)


@pytest.mark.parametrize("gate", GATES)
def test_a_broken_gate_ends_with_8_and_every_report_says_so(folder, eval_, gate):
    done = quantize(GATE, folder, *settings(gate, GATES[gate][0]), eval_=eval_)
    report, markdown, cases = reported(folder)
    assert f"NOT MET     {gate}" in done.stdout
    assert folder.out.exists()
    assert report["verdict"] == "failed"
    assert [(g["name"], g["passed"]) for g in report["gates"]] == [(gate, False)]
    assert isinstance(report["gates"][0]["value"], (int, float)), "the figure must have been measured"
    assert markdown.startswith("**Failed: 1 of 1 gate is not met.**") and f"`{gate}`" in markdown
    assert list(cases) == [gate] and cases[gate] is not None


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_that_is_met_ends_with_0(folder, eval_, gate):
    done = quantize(OK, folder, *settings(gate, GATES[gate][1]), eval_=eval_)
    report, _, cases = reported(folder)
    assert "NOT MET" not in done.stdout
    assert report["verdict"] == "passed"
    assert list(cases) == [gate] and cases[gate] is None


def test_of_two_gates_only_the_broken_one_fails(folder, eval_):
    quantize(GATE, folder, *settings("min_sqnr_db", 300), *settings("max_size_ratio", 0.9), eval_=eval_)
    report, _, cases = reported(folder)
    assert {g["name"]: g["passed"] for g in report["gates"]} == {"min_sqnr_db": False, "max_size_ratio": True}
    assert cases["min_sqnr_db"] is not None and cases["max_size_ratio"] is None


@pytest.mark.parametrize("external", ["auto", "always"])
def test_no_output_on_failure_leaves_no_model_but_the_report(folder, eval_, external):
    before = folder.files()
    more = ["--no-output-on-failure", "--set", f"output.external_data={external}"]
    quantize(GATE, folder, *settings("min_sqnr_db", 300), *more, eval_=eval_)
    assert folder.files() == sorted([*before, "report"])
    quantize(OK, folder, *settings("min_sqnr_db", 10), *more, eval_=eval_)
    assert folder.out.exists()
    expect(OK, "inspect", folder.out)
    assert not [name for name in folder.files() if "unjudged" in name]
    assert [name.startswith("out.onnx.") for name in folder.files() if name.endswith(".data")] == ([True] if external == "always" else [])
    # the same model judged again, and refused: what stood before stays whole
    after = folder.files()
    quantize(GATE, folder, *settings("min_sqnr_db", 300), *more, eval_=eval_)
    assert folder.files() == after
    expect(OK, "validate", DIGITS / "model.onnx", folder.out, "--eval", DIGITS / "eval.npz")


def test_no_output_on_failure_keeps_the_old_output(folder, eval_):
    folder.write("out.onnx", "the old output")
    quantize(GATE, folder, *settings("min_sqnr_db", 300), "--no-output-on-failure", eval_=eval_)
    assert folder.out.read_text() == "the old output"


def test_the_same_gate_judges_in_validate(folder):
    quantize(OK, folder)
    validate = ["validate", DIGITS / "model.onnx", folder.out, "--eval", DIGITS / "eval.npz"]
    assert "NOT MET     min_sqnr_db" in expect(GATE, *validate, *settings("min_sqnr_db", 300)).stdout
    expect(OK, *validate, *settings("min_sqnr_db", 10))


@pytest.mark.parametrize("gate, met, not_met", [("min_integer_macs", 0.5, 0.999), ("max_memory_mb", 500, 0.001), ("max_latency_ms", 1000, 1e-6)])
def test_validate_measures_what_its_gates_need(folder, gate, met, not_met):
    quantize(OK, folder)
    validate = ["validate", DIGITS / "model.onnx", folder.out, "--eval", DIGITS / "eval.npz"]
    expect(OK, *validate, *settings(gate, met))
    assert f"NOT MET     {gate}" in expect(GATE, *validate, *settings(gate, not_met)).stdout


def test_validate_reads_the_layers_forms_off_the_file(folder):
    made = json.loads(quantize(OK, folder, "--json").stdout)
    read = json.loads(expect(OK, "validate", DIGITS / "model.onnx", folder.out, "--eval", DIGITS / "eval.npz", "--json").stdout)
    assert [(l["form"], l["macs"]) for l in read["layers"]] == [(l["form"], l["macs"]) for l in made["layers"]]
    assert {l["form"] for l in read["layers"]} >= {"int8 static", "float32"}


def test_a_gate_without_its_figure_is_not_met_and_says_what_is_missing(folder):
    done = quantize(GATE, folder, "--set", "gates.max_metric_drop=1")
    assert "eval.metric" in done.stdout


# A metric of the user's

def command(folder, body, *more):
    script = folder.write("metric.sh", body)
    line = json.dumps(f"sh {script} {{outputs}} {{data}}")
    return ["--set", "eval.metric=command", "--set", f"eval.command={line}", "--set", "eval.name=mine", *more]


def test_a_metric_command_reads_outputs_and_its_last_line_is_the_figure(folder, eval_):
    body = "echo working\ncase $1 in *original*) echo 0.75;; *) echo 0.5;; esac\ntest -s \"$1\" && test -s \"$2\"\n"
    more = command(folder, body, "--set", "gates.max_metric_drop=0.2")
    done = quantize(GATE, folder, *more, eval_=eval_)
    assert "the drop of mine is 0.25" in done.stdout
    metric, = reported(folder)[0]["metrics"]
    assert (metric["original"], metric["optimized"], metric["drop"]) == (0.75, 0.5, 0.25)
    quantize(OK, folder, *more, "--set", "gates.max_metric_drop=0.3", eval_=eval_)


@pytest.mark.parametrize("body, told", [("echo rubbish\n", "rubbish"), ("true\n", "number"), ("echo nan\n", "nan"), ("echo 0.5\nexit 3\n", "3")],
                         ids=["words", "nothing", "nan", "fails"])
def test_a_metric_command_that_prints_no_number_is_a_usage_error(folder, eval_, body, told):
    more = command(folder, body)
    before = folder.files()
    done = quantize(USAGE, folder, *more, "--no-output-on-failure", "--set", "gates.min_sqnr_db=1", eval_=eval_)
    assert told in done.stderr
    assert folder.files() == sorted([*before, "report"])
