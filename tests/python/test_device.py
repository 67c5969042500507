"""--device cuda, on the emulated device: what runs there, and what goes wrong there."""
import json
import os
import subprocess

import numpy as np
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
