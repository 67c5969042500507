import numpy as np
import onnx
import pytest

from support import Folder, two_layers


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def case(tmp_path):
    """A folder with a small model, and calibration data one of whose channels stands out."""
    onnx.save(two_layers(), tmp_path / "m.onnx")
    x = np.random.default_rng(5).standard_normal((16, 64)).astype(np.float32)
    x[:, 3] *= 30
    np.savez(tmp_path / "calib.npz", x=x)
    return tmp_path
