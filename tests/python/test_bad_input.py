"""Bad input gets a clear error of the right exit code and nothing is lost: models, data, places, disks, interrupts."""
import os
import resource
import signal
import subprocess
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from support import ESCAPE, INFOPT, IO, MALFORMED, OK, UNSUPPORTED, batch, expect, model_of, two_layers


def refuse(folder, code, *told, model=None, calib=None):
    """quantize ends with the code, says all of `told`, and leaves no file that wasn't there."""
    before = folder.files()
    done = folder.quantize(code, model=model, calib=calib)
    for text in told:
        assert text in done.stderr, done.stderr
    assert folder.files() == before
    return done


# Models

@pytest.mark.parametrize("content", [b"", b"not a model, just a line of text\n", None], ids=["empty", "text", "random"])
def test_a_file_that_is_no_model_is_malformed(folder, content):
    if content is None:
        content = np.random.default_rng(7).bytes(4096)
    refuse(folder, MALFORMED, "bad.onnx", model=folder.write("bad.onnx", content))


def test_a_truncated_model_is_malformed_wherever_it_ends(folder):
    whole = folder.model.read_bytes()
    for end in (1, 10, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        refuse(folder, MALFORMED, "cut.onnx", model=folder.write("cut.onnx", whole[:end]))


def test_dimensions_that_overflow_are_refused(folder):
    model = two_layers()
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
    refuse(folder, MALFORMED, "w1", model=folder.save(model))


def test_weight_data_that_does_not_fit_its_shape_is_named(folder):
    model = two_layers()
    model.graph.initializer[0].dims[:] = [64, 97]
    refuse(folder, MALFORMED, "w1", model=folder.save(model))


def test_a_cycle_is_refused(folder):
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    refuse(folder, MALFORMED, model=folder.save(model_of(nodes, [("x", [64])], [("b", [64])])))


def test_an_undefined_value_is_named(folder):
    refuse(folder, MALFORMED, "nowhere", model=folder.save(model_of([helper.make_node("Add", ["x", "nowhere"], ["y"])], [("x", [64])], [("y", [64])])))


def test_an_unknown_element_type_is_refused(folder):
    model = two_layers()
    model.graph.initializer[0].data_type = 99
    refuse(folder, MALFORMED, "w1", model=folder.save(model))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_in_weights_are_refused_and_the_tensor_named(folder, value):
    model = two_layers()
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[3, 5] = value
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w1"))
    refuse(folder, MALFORMED, "w1", model=folder.save(model))


def test_nan_and_inf_in_activations_name_tensor_and_sample(folder):
    model = two_layers()
    model.graph.node.extend([helper.make_node("Div", ["y", "d"], ["z"], "divide"), helper.make_node("Gemm", ["z", "w3"], ["out"], "last")])
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["x"], ["d"], "largest", axes=[1], keepdims=1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((10, 4), np.float32), "w3"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 4]))
    x = batch()
    x[5] = 0
    refuse(folder, MALFORMED, "'z'", "sample 5", model=folder.save(model), calib=folder.npz("zero.npz", x=x))


def net_with(text, **constants):
    """A net whose part `text` makes h[N,64] of x[N,64], with a product behind it."""
    weights = {"w": np.random.default_rng(3).standard_normal((64, 32)).astype(np.float32) / 8, **constants}
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> net (float[N,64] x) => (float[N,32] y) {{ {text} y = MatMul(h, w) }}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    return model


@pytest.mark.parametrize("text, value", [("e = Exp(x) h = Reciprocal(e)", 200), ("e = Sqrt(x) z = Greater(x, zero) h = Where(z, e, x)", -1), ("e = Div(one, x) h = Clip(e, zero, one)", 0)],
                         ids=["infinity", "NaN", "division by 0"])
def test_a_nan_or_infinity_that_no_output_shows_is_named_with_its_sample(text, value, folder):
    x = np.abs(batch()) + 1
    model = folder.save(net_with(text, zero=np.float32(0), one=np.float32(1)))
    expect(OK, "quantize", model, "--calib", folder.npz("good.npz", x=x), "-o", folder / "good.onnx")
    x[5, 7] = value
    refuse(folder, MALFORMED, "sample 5", "tensor 'e'", model=model, calib=folder.npz("data.npz", x=x))


MASKS = {
    "masked scores": "m = Greater(x, zero) s = Where(m, x, low) h = Softmax(s)",
    "rows masked whole": "m = Greater(x, two) s = Where(m, x, low) p = Softmax(s) n = IsNaN(p) h = Where(n, zero, p)",
    "logarithm of a mask": "m = Greater(x, zero) c = Cast<to=1>(m) l = Log(c) s = Add(x, l) h = Softmax(s)",
    "two of the lowest numbers": "m = Greater(x, zero) s = Where(m, zero, least) t = Add(s, s) u = Add(t, x) h = Softmax(u)",
    "least of what is there": "m = Greater(x, zero) s = Where(m, x, high) r = ReduceMin<axes=[1], keepdims=1>(s) h = Sub(x, r)",
}


@pytest.mark.parametrize("text", MASKS.values(), ids=MASKS)
def test_infinities_by_design_are_no_error(text, folder):
    constants = {"zero": 0, "two": 2, "low": -np.inf, "high": np.inf, "least": np.finfo(np.float32).min}
    x = batch()
    x[:, 0] = 1
    if "two" in text:
        x[3] = 0  # masked whole
    model = folder.save(net_with(text, **{k: np.float32(v) for k, v in constants.items()}))
    expect(OK, "quantize", model, "--calib", folder.npz("data.npz", x=x), "-o", folder.out)


# External data

def with_external(folder, location):
    model = two_layers()
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(location))
    inner = folder / "inner"
    inner.mkdir()
    (inner / "model.onnx").write_bytes(model.SerializeToString())
    return inner, content


@pytest.mark.parametrize("way", ["dots", "absolute", "symlink", "hardlink"])
def test_external_data_outside_the_models_folder_is_refused(folder, way):
    secret = folder / "secret.bin"
    location = {"dots": "../secret.bin", "absolute": secret, "symlink": "link.bin", "hardlink": "link.bin"}[way]
    inner, content = with_external(folder, location)
    secret.write_bytes(content)
    if way == "symlink":
        (inner / "link.bin").symlink_to(secret)
    if way == "hardlink":
        (inner / "link.bin").hardlink_to(secret)
    refuse(folder, ESCAPE, "w1", model=inner / "model.onnx")


def test_external_data_that_is_missing_is_named(folder):
    inner, _ = with_external(folder, "weights.bin")
    refuse(folder, IO, "weights.bin", model=inner / "model.onnx")


def test_external_data_beside_the_model_is_read(folder):
    inner, content = with_external(folder, "weights.bin")
    (inner / "weights.bin").write_bytes(content)
    folder.quantize(OK, model=inner / "model.onnx")


# Data

def test_a_missing_data_file_is_named(folder):
    refuse(folder, IO, "nowhere.npz", calib=folder / "nowhere.npz")


def test_zero_samples_are_refused(folder):
    refuse(folder, MALFORMED, "none.npz", calib=folder.npz("none.npz", x=batch(0)))


@pytest.mark.parametrize("arrays, told", [
    ({"z": batch()}, ["'x'", "'z'"]),
    ({"x": batch()[:, :63]}, ["'x'", "63", "64"]),
    ({"x": batch().reshape(16, 8, 8)}, ["'x'", "8"]),
    ({"x": batch().astype(np.int64)}, ["'x'", "int64", "float"]),
], ids=["name", "shape", "rank", "dtype"])
def test_a_sample_of_the_wrong_name_shape_or_dtype_is_named(folder, arrays, told):
    refuse(folder, MALFORMED, "wrong.npz", *told, calib=folder.npz("wrong.npz", **arrays))


def test_an_array_of_a_type_that_no_tensor_has_is_unsupported(folder):
    refuse(folder, UNSUPPORTED, "'x'", "c8", calib=folder.npz("complex.npz", x=batch().astype(np.complex64)))


def test_an_array_that_is_no_input_is_told(folder):
    assert "'z'" in folder.quantize(OK, calib=folder.npz("more.npz", x=batch(), z=batch())).stdout


def test_a_sample_of_zeros_is_like_any_other(folder):
    x = batch()
    x[5] = 0
    folder.quantize(OK, "--set", "calibrate.method=entropy", "--target", "generic", calib=folder.npz("zero.npz", x=x))


class Payload:
    """Unpickling this creates the file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_a_pickled_array_is_refused_and_never_unpickled(folder, kind):
    trap = folder / "trap"
    array = np.array([Payload(trap)], dtype=object)
    path = folder / f"pickled.{kind}"
    np.savez(path, x=array) if kind == "npz" else np.save(path, array)
    refuse(folder, MALFORMED, "pickle", calib=path)
    assert not trap.exists()
    np.load(path, allow_pickle=True)["x"] if kind == "npz" else np.load(path, allow_pickle=True)
    assert trap.exists(), "the payload must be one that works"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_in_data_name_array_and_sample(folder, value):
    x = batch()
    x[11, 3] = value
    refuse(folder, MALFORMED, "'x'", "11", calib=folder.npz("bad.npz", x=x))


def test_truncated_and_random_data_are_malformed(folder):
    whole = folder.calib.read_bytes()
    refuse(folder, MALFORMED, "cut.npz", calib=folder.write("cut.npz", whole[:len(whole) // 2]))
    refuse(folder, MALFORMED, "noise.npz", calib=folder.write("noise.npz", np.random.default_rng(3).bytes(5000)))
    refuse(folder, MALFORMED, "empty.npz", calib=folder.write("empty.npz", b""))


def test_a_file_that_inflates_to_more_than_it_says_is_refused(folder):
    """The header promises 2**60 elements: no memory is taken for them."""
    np.save(folder / "x.npy", batch())
    content = (folder / "x.npy").read_bytes().replace(b"(16, 64)", b"(1152921504606846976, 64)").replace(b" " * 17 + b"\n", b"\n")
    (folder / "x.npy").write_bytes(content)
    done = folder.quantize(MALFORMED, calib=folder / "x.npy")
    assert "x.npy" in done.stderr


# Places and disks

def file_size_limit(bytes_):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, bytes_))
    return limit


@pytest.mark.parametrize("command", ["quantize", "optimize", "calibrate"])
def test_a_full_disk_keeps_the_old_output_and_leaves_no_temporary_file(folder, command):
    folder.write("out.onnx", "the old output")
    before = folder.files()
    done = expect(IO, command, folder.model, "--calib", folder.calib, "-o", folder.out, preexec_fn=file_size_limit(2000))
    assert "out.onnx" in done.stderr
    assert folder.files() == before
    assert folder.out.read_text() == "the old output"


def test_a_full_disk_while_the_report_is_written_is_told(folder):
    done = expect(IO, "quantize", folder.model, "--calib", folder.calib, "-o", folder.out, "--report", "/dev/full/report")
    assert "/dev/full" in done.stderr
    assert not folder.out.exists()


# Interrupts

@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("more", [[], ["--no-output-on-failure", "--set", "gates.min_sqnr_db=1"]], ids=["plain", "withheld"])
def test_an_interrupt_during_calibration_leaves_nothing_half_written(folder, number, code, more):
    calib = folder.npz("long.npz", x=batch(150_000))
    folder.write("out.onnx", "the old output")
    before = folder.files()
    process = subprocess.Popen([INFOPT, "quantize", folder.model, "--calib", calib, "-o", folder.out, "--threads", "1", *more],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.25)
    assert process.poll() is None, "the work must last until the signal"
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert folder.files() == before
    assert folder.out.read_text() == "the old output"


def test_an_interrupt_while_gates_are_judged_leaves_no_withheld_model(folder):
    started = folder / "started"
    eval_ = folder.npz("eval.npz", x=batch(), label=np.zeros(16, np.int64))
    before = folder.files()
    process = subprocess.Popen([INFOPT, "quantize", folder.model, "--calib", folder.calib, "--eval", eval_, "-o", folder.out, "--no-output-on-failure",
                                "--set", "gates.max_metric_drop=1", "--set", "eval.metric=command",
                                "--set", f"eval.command='touch {started}; sleep 2; echo 1'"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(200):
        if started.exists():
            break
        time.sleep(0.05)
    assert started.exists()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143
    started.unlink()
    assert folder.files() == before
