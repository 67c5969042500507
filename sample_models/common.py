"""What the three train.py scripts share: a fixed seed, the export, and the check of what was exported."""

import pathlib

import numpy as np
import onnx
import onnxruntime
import torch

from score import score


def fix_seed(seed=0):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def train(model, batches, epochs, steps, rate):
    """AdamW under one cosine cycle. batches(epoch) yields (inputs..., labels)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=0.15)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for *inputs, labels in batches(epoch):
            loss = loss_of(model(*inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}", flush=True)
    model.eval()


def save(folder, model, names, calib, evaluation, labels, opset, dynamic_axes, keep_batch_norm=False):
    """Writes model.onnx, calib.npz and eval.npz; checks the file; prints the score."""
    folder = pathlib.Path(folder)
    np.savez_compressed(folder / "calib.npz", **dict(zip(names, calib)))
    np.savez_compressed(folder / "eval.npz", **dict(zip(names, evaluation)), label=labels)
    mode = torch.onnx.TrainingMode
    torch.onnx.export(
        model,
        tuple(torch.from_numpy(x[:2]) for x in calib),
        str(folder / "model.onnx"),
        input_names=list(names),
        output_names=["logits"],
        opset_version=opset,
        dynamic_axes=dynamic_axes,
        # In PRESERVE mode the exporter leaves BatchNormalization unfolded; the model itself is in eval mode.
        training=mode.PRESERVE if keep_batch_norm else mode.EVAL,
        do_constant_folding=not keep_batch_norm,
    )
    loaded = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(loaded, full_check=True)
    with torch.no_grad():
        want = model(*(torch.from_numpy(x) for x in evaluation)).numpy()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(None, dict(zip(names, evaluation)))[0]
    print("opset", loaded.opset_import[0].version, "ir", loaded.ir_version, "nodes", len(loaded.graph.node))
    print("largest difference from PyTorch:", float(np.abs(want - got).max()))
    print("accuracy in ONNX Runtime:", score(folder))
