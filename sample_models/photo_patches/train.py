"""Trains and exports a small MobileNetV3-like network: which of ten photographs is this patch from?
Needs ../requirements.txt; a few minutes on one core."""

import pathlib
import sys

import numpy as np
import skimage
import torch
from PIL import Image
from torch import nn

folder = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(folder.parent))
import common  # noqa: E402

# Public domain or CC0, each said so in scikit-image's own documentation of it.
PHOTOS = ["astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png",
          "grass.png", "gravel.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg"]
SIZE = 32


def hard_sigmoid(x):
    return torch.clamp(x + 3, 0, 6) / 6


class HardSwish(nn.Module):
    def forward(self, x):
        return x * hard_sigmoid(x)


class Swish(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x)


class SqueezeExcite(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down, self.up = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x):
        return x * hard_sigmoid(self.up(torch.relu(self.down(self.pool(x)))))


class Inverted(nn.Module):
    def __init__(self, cin, mid, cout, kernel, stride, excite, act):
        super().__init__()
        self.residual = stride == 1 and cin == cout
        self.body = nn.Sequential(
            nn.Conv2d(cin, mid, 1, bias=False), nn.BatchNorm2d(mid), act(),
            nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False), nn.BatchNorm2d(mid), act(),
            SqueezeExcite(mid) if excite else nn.Identity(),
            nn.Conv2d(mid, cout, 1, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class PhotoPatches(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), HardSwish(),
            Inverted(16, 32, 16, 3, 1, True, nn.ReLU),
            Inverted(16, 64, 24, 3, 2, False, nn.ReLU),
            Inverted(24, 80, 24, 3, 1, False, HardSwish),
            Inverted(24, 96, 40, 5, 2, True, HardSwish),
            Inverted(40, 120, 40, 5, 1, True, Swish),
            nn.Conv2d(40, 160, 1, bias=False), nn.BatchNorm2d(160), HardSwish())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(160, 128), HardSwish(), nn.Linear(128, len(PHOTOS)))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1))

    def forward(self, pixels):
        x = (pixels / 255 - self.mean) / self.std
        return self.head(self.pool(self.body(x)))


rng = common.fix_seed(0)
photos = []
for name in PHOTOS:
    photo = Image.open(pathlib.Path(skimage.__file__).parent / "data" / name).convert("RGB")
    if name == "retina.jpg":  # without its black rim
        photo = photo.crop((256, 256, 1156, 1156))
    photos.append(np.asarray(photo))


def patches(count, left):
    """Random patches with a random gain and offset, half of them grey. The left three quarters of each photograph
    train; the right quarter evaluates."""
    xs, ys = [], []
    for _ in range(count):
        k = int(rng.integers(len(photos)))
        height, width, _ = photos[k].shape
        cut = width * 3 // 4
        low, high = (0, cut - SIZE) if left else (cut, width - SIZE)
        y, x = rng.integers(0, height - SIZE + 1), rng.integers(low, high + 1)
        patch = photos[k][y : y + SIZE, x : x + SIZE].astype(np.float32)
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        if rng.random() < 0.5:
            patch = np.repeat(patch @ np.float32([[0.299], [0.587], [0.114]]), 3, 2)
        patch = patch * rng.uniform(0.7, 1.3) + rng.uniform(-25, 25)
        xs.append(np.clip(np.rint(patch), 0, 255).transpose(2, 0, 1))
        ys.append(k)
    return np.ascontiguousarray(np.stack(xs), np.float32), np.array(ys, np.int64)


eval_x, eval_y = patches(320, left=False)
calib_x, _ = patches(64, left=True)
batch, steps = 64, 100


def batches(_):
    for _ in range(steps):
        x, y = patches(batch, left=True)
        yield torch.from_numpy(x), torch.from_numpy(y)


model = PhotoPatches()
common.train(model, batches, epochs=20, steps=steps, rate=6e-3)
common.save(folder, model, ["pixels"], [calib_x], [eval_x], eval_y, opset=11,
            dynamic_axes={"pixels": {0: "batch"}, "logits": {0: "batch"}})
