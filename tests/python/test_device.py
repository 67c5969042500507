"""--device cuda, on the emulated device: what runs there, and what goes wrong there."""
import io
import json
import os
import struct
import subprocess

import numpy as np
import onnx
import pytest

import support
from support import EMULATED, LIMIT, OK, ROOT, UNSUPPORTED

DEFECT = 1
SAMPLES = ["digits_cnn", "photo_patches", "text_language"]


def emulated(code, *args, faults=""):
    done = subprocess.run([EMULATED, *map(str, args)], capture_output=True, text=True, timeout=300, env={**os.environ, "INFOPT_EMULATE": faults})
    assert done.returncode == code, f"exit {done.returncode}, {code} expected\n{done.stdout}\n{done.stderr}"
    return done


def run(code, folder, faults="", device="cuda"):
    out = folder / f"{device}.npz"
    return emulated(code, "run", folder.model, "--input", folder.calib, "-o", out, "--device", device, faults=faults), out


def decibels(want, got):
    noise = np.square(want.astype(np.float64) - got).sum()
    return np.inf if noise == 0 else 10 * np.log10(np.square(want.astype(np.float64)).sum() / noise)


def test_without_a_driver_it_ends_with_4_and_says_what_is_missing(folder):
    done, out = run(UNSUPPORTED, folder, "no_device")
    assert "driver" in done.stderr and "--device cuda" in done.stderr
    assert not out.exists()


def test_the_infopt_that_was_built_says_what_it_lacks_for_cuda(folder):
    """Not the emulated one: where it was built for GPUs, the driver is asked for, and here shows no device."""
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "INFOPT_EMULATE": "no_device"}
    done = support.expect(UNSUPPORTED, "run", folder.model, "--input", folder.calib, "-o", folder / "o.npz", "--device", "cuda", env=hidden)
    built = os.environ.get("INFOPT_CUDA_BUILT")
    missing = {"1": ["no CUDA device: "], "0": ["built without CUDA"]}.get(built, ["no CUDA device: ", "built without CUDA"])
    assert any(text in done.stderr for text in missing), done.stderr
    assert not (folder / "o.npz").exists()


def test_auto_needs_no_device(folder):
    run(OK, folder, "no_device", device="auto")


def test_tf32_is_for_cuda(folder):
    assert "--tf32" in support.expect(support.USAGE, "run", folder.model, "--input", folder.calib, "-o", folder / "o.npz", "--tf32").stderr


def test_sparse_is_for_cuda(folder):
    assert "--sparse" in support.expect(support.USAGE, "run", folder.model, "--input", folder.calib, "-o", folder / "o.npz", "--sparse", "always").stderr


@pytest.fixture
def two_of_four(tmp_path):
    """x·W in float16, two of each four neighbours of W's inputs zero."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 32)).astype(np.float16)
    weights[(np.arange(64)[:, None] + np.arange(32)) % 4 < 2] = 0  # not the same ones for neighbouring outputs: no blocks
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT16, [16, size]) for name, size in (("x", 64), ("y", 32)))
    graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [onnx.numpy_helper.from_array(weights, "w")])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((16, 64)).astype(np.float16))
    return tmp_path, weights


def test_plans_say_what_becomes_of_zeros(two_of_four):
    folder, _ = two_of_four
    plan = lambda *args, faults="": json.loads(emulated(OK, "inspect", folder / "m.onnx", "--plan", "--json", "--device", "cuda", *args, faults=faults).stdout)["steps"][0]["kernel"]
    assert "zeros 2:4: dense, as an emulated device has no times to choose by" in plan()
    assert "zeros 2:4: sparse, as was asked for" in plan("--sparse", "always")
    assert "2:4" not in plan("--sparse", "never")
    assert "2:4, dense: built without cuSPARSELt" in plan("--sparse", "always", faults="no_sparse_library")
    timed = plan(faults="times")
    assert "2:4, " in timed and "x (16 rows)" in timed  # a run with made-up inputs has shown it
    report = json.loads(emulated(OK, "bench", folder / "m.onnx", "--device", "cuda", "--runs", 3, "--profile", "--json", faults="times").stdout)
    assert "x (16 rows)" in report["profile"]["nodes"][0]["kernel"]


@pytest.mark.parametrize("sparse", ["auto", "always", "never"])
def test_zeros_left_out_change_nothing_but_rounding(two_of_four, sparse):
    folder, weights = two_of_four
    emulated(OK, "run", folder / "m.onnx", "--input", folder / "x.npz", "-o", folder / "y.npz", "--device", "cuda", "--sparse", sparse)
    want = np.load(folder / "x.npz")["x"].astype(np.float64) @ weights.astype(np.float64)
    assert np.abs(np.load(folder / "y.npz")["y"] - want).max() <= 2e-3 * np.abs(want).max()


def test_too_little_device_memory_ends_with_6_and_leaves_nothing(folder):
    done, out = run(LIMIT, folder, "memory=1000")
    assert "memory" in done.stderr
    assert not out.exists()


def test_a_launch_that_fails_ends_with_1_and_leaves_nothing(folder):
    done, out = run(DEFECT, folder, "launch=0")
    assert "could not be launched" in done.stderr
    assert not out.exists()


def steps_on_the_cpu(model):
    plan = json.loads(emulated(OK, "inspect", model, "--plan", "--json", "--device", "cuda").stdout)
    return [f"{s['operators']}: {s.get('refused')}" for s in plan["steps"] if s["place"] == "cpu"]


def on_both(tmp_path, model, data, samples):
    outputs = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.npz"
        emulated(OK, "run", model, "--input", data, "-o", out, "--device", device, "--samples", samples)
        outputs[device] = dict(np.load(out))
    return outputs["cpu"], outputs["cuda"]


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_models_run_on_the_device_alone_and_agree_with_the_cpu(name, tmp_path):
    sample = ROOT / "sample_models" / name
    assert steps_on_the_cpu(sample / "model.onnx") == []
    cpu, cuda = on_both(tmp_path, sample / "model.onnx", sample / "eval.npz", 4)
    for output, want in cpu.items():
        assert np.abs(want - cuda[output]).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("recipe, target", [("int8", "ort-cpu"), ("int8", "tensorrt"), ("fp16", "generic")])
@pytest.mark.parametrize("name", SAMPLES)
def test_quantized_sample_models_run_on_the_device_alone_and_agree_with_the_cpu(name, recipe, target, tmp_path):
    sample = ROOT / "sample_models" / name
    model = tmp_path / "out.onnx"
    support.expect(OK, "quantize", sample / "model.onnx", "--calib", sample / "calib.npz", "-o", model, "--recipe", recipe, "--target", target, "--samples", 16)
    assert steps_on_the_cpu(model) == []
    cpu, cuda = on_both(tmp_path, model, sample / "eval.npz", 4)
    for output, want in cpu.items():
        assert decibels(want, cuda[output]) >= 40


def cbor(stream):
    """One item of RFC 8949, of the kinds that a file of statistics has."""
    head = stream.read(1)[0]
    kind, short = head >> 5, head & 31
    if kind == 7:
        return {20: lambda: False, 21: lambda: True, 22: lambda: None, 26: lambda: struct.unpack(">f", stream.read(4))[0], 27: lambda: struct.unpack(">d", stream.read(8))[0],
                25: lambda: struct.unpack(">e", stream.read(2))[0]}[short]()
    count = short if short < 24 else int.from_bytes(stream.read(1 << (short - 24)), "big")
    if kind == 3:
        return stream.read(count).decode()
    if kind == 4:
        return [cbor(stream) for _ in range(count)]
    if kind == 5:
        return {cbor(stream): cbor(stream) for _ in range(count)}
    return count if kind == 0 else -1 - count


def calibrated(tmp_path, sample, device, samples=6):
    out = tmp_path / f"{device}.statistics"
    emulated(OK, "calibrate", sample / "model.onnx", "--calib", sample / "calib.npz", "-o", out, "--samples", samples, "--device", device)
    return out, cbor(io.BytesIO(out.read_bytes()))


@pytest.mark.parametrize("name", SAMPLES)
def test_statistics_of_the_sample_models_are_those_of_the_cpu(name, tmp_path):
    sample = ROOT / "sample_models" / name
    (_, cpu), (out, cuda) = calibrated(tmp_path, sample, "cpu"), calibrated(tmp_path, sample, "cuda")
    assert {k: v for k, v in cpu.items() if k != "tensors"} == {k: v for k, v in cuda.items() if k != "tensors"}
    assert len(cpu["tensors"]) == len(cuda["tensors"]) > 0
    for want, got in zip(cpu["tensors"], cuda["tensors"]):
        assert [want[k] for k in ("value", "samples", "elements")] == [got[k] for k in ("value", "samples", "elements")]
        assert sum(got["counts"]) == want["elements"]
        largest = max(abs(want["min"]), abs(want["max"]))
        for k in ("min", "max", "channel_min", "channel_max"):
            assert np.allclose(want[k], got[k], rtol=0, atol=1e-5 * largest), (k, want["value"])
        per_channel = want["elements"] / max(1, len(want["channel_sum"]))
        assert np.allclose(want["channel_sum"], got["channel_sum"], rtol=0, atol=1e-5 * largest * per_channel)
        assert np.allclose(want["channel_square"], got["channel_square"], rtol=0, atol=2e-5 * largest**2 * per_channel)
        if want["exponent"] == got["exponent"]:  # nothing moves by more than a bin
            below, expected = np.cumsum([0, *got["counts"]]), np.cumsum([0, *want["counts"]])
            assert (below[1:] >= expected[:-1]).all() and (below[:-1] <= expected[1:]).all()
    again = emulated(OK, "quantize", sample / "model.onnx", "--calib", sample / "calib.npz", "--samples", 6, "--statistics", out, "-o", tmp_path / "quantized.onnx")
    assert (tmp_path / "quantized.onnx").exists(), again.stdout


def test_the_statistics_file_of_the_device_does_not_depend_on_threads(tmp_path):
    sample = ROOT / "sample_models" / "digits_cnn"
    files = []
    for threads in (1, 2):
        out = tmp_path / f"{threads}.statistics"
        emulated(OK, "calibrate", sample / "model.onnx", "--calib", sample / "calib.npz", "-o", out, "--samples", 5, "--device", "cuda", "--threads", threads)
        files.append(out.read_bytes())
    assert files[0] == files[1]


def test_calibration_on_the_device_names_what_the_cpu_names(folder):
    x = support.batch()
    weights = onnx.numpy_helper.to_array(onnx.load(folder.model).graph.initializer[0])
    x[3] = 3e38 * np.sign(weights if weights.shape[0] == 64 else weights.T)[:, 0]  # the first column's sum overflows
    data = folder.npz("huge.npz", x=x)
    told = {}
    for device in ("cpu", "cuda"):
        told[device] = emulated(support.MALFORMED, "calibrate", folder.model, "--calib", data, "-o", folder / "s", "--device", device).stderr.splitlines()[-1]
        assert not (folder / "s").exists()
    assert told["cpu"] == told["cuda"] and "infinite" in told["cuda"]
