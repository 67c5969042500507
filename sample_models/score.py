"""score.py FOLDER...: top-1 accuracy of FOLDER/model.onnx on FOLDER/eval.npz in ONNX Runtime. Needs numpy and onnxruntime."""

import pathlib
import sys

import numpy as np
import onnxruntime


def score(folder):
    folder = pathlib.Path(folder)
    data = dict(np.load(folder / "eval.npz"))
    labels = data.pop("label")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    logits = session.run(None, data)[0]
    return float((logits.argmax(1) == labels).mean())


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {100 * score(name):.2f} %")
