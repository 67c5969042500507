"""Trains and exports a small transformer encoder over bytes: which language is this line in?
Needs ../requirements.txt; a few minutes on one core."""

import gettext
import importlib.util
import math
import pathlib
import re
import sys
import zlib

import numpy as np
import torch
from torch import nn

folder = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(folder.parent))
import common  # noqa: E402

LANGUAGES = ["cs", "da", "de", "es", "fi", "fr", "hu", "it", "nl", "pl"]
LENGTH = 48  # bytes a line, the rest is cut off; 0 is padding


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def split(self, x):
        return x.view(x.size(0), x.size(1), self.heads, self.size).permute(0, 2, 1, 3)

    def forward(self, x, bias):
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.size) + bias
        y = torch.matmul(torch.softmax(scores, -1), v).permute(0, 2, 1, 3).contiguous()
        return self.out(y.view(y.size(0), y.size(1), self.heads * self.size))


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attend, self.norm1 = Attention(width, heads), nn.LayerNorm(width)
        self.up, self.gelu, self.down = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x, bias):
        x = self.norm1(x + self.attend(x, bias))
        return self.norm2(x + self.down(self.gelu(self.up(x))))


class TextLanguage(nn.Module):
    def __init__(self, width=96, layers=2, heads=4):
        super().__init__()
        self.token, self.position = nn.Embedding(256, width), nn.Embedding(LENGTH, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.classify = nn.Linear(width, len(LANGUAGES))
        self.register_buffer("places", torch.arange(LENGTH).unsqueeze(0))

    def forward(self, tokens, mask):
        keep = mask.to(torch.float32)
        bias = (1.0 - keep)[:, None, None, :] * -10000.0
        x = self.norm(self.token(tokens) + self.position(self.places[:, : tokens.size(1)]))
        for layer in self.layers:
            x = layer(x, bias)
        keep = keep.unsqueeze(-1)
        return self.classify((x * keep).sum(1) / keep.sum(1).clamp(min=1e-9))


rng = common.fix_seed(0)
django = pathlib.Path(importlib.util.find_spec("django").origin).parent
lines = {False: [], True: []}  # held out for evaluation?, by the English original, so that no message is on both sides
for label, language in enumerate(LANGUAGES):
    seen = set()
    for path in sorted(django.glob(f"**/locale/{language}/LC_MESSAGES/*.mo")):
        with open(path, "rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog
        for original, text in catalogue.items():
            original = original if isinstance(original, str) else original[0]
            text = re.sub(r"%\(\w+\)s|%[sdr]|\{\w*\}|<[^>]*>|\s+", " ", text).strip()
            if original and len(text) >= 16 and text != original and text not in seen:
                seen.add(text)
                lines[zlib.crc32(original.encode()) % 8 == 0].append((text, label))


def tensors(pairs, augment=False):
    tokens = np.zeros((len(pairs), LENGTH), np.int64)
    for row, (text, _) in zip(tokens, pairs):
        data = np.frombuffer(text.encode(), np.uint8)
        if augment:  # from anywhere, and one byte in sixteen another
            data = data[rng.integers(0, max(1, len(data) - 23)) :].copy()
            wrong = rng.random(len(data)) < 1 / 16
            data[wrong] = rng.integers(32, 127, int(wrong.sum()))
        data = data[:LENGTH]
        row[: len(data)] = data
    return tokens, (tokens != 0).astype(np.int64), np.array([y for _, y in pairs], np.int64)


held = lines[True]
eval_set = tensors([held[i] for i in rng.permutation(len(held))])
calib = tensors([lines[False][i] for i in rng.permutation(len(lines[False]))[:64]])
print(len(lines[False]), "lines to train on,", len(held), "held out")
batch = 64
steps = len(lines[False]) // batch


def batches(_):
    order = rng.permutation(len(lines[False]))
    for i in range(steps):
        pairs = [lines[False][k] for k in order[i * batch : (i + 1) * batch]]
        yield tuple(torch.from_numpy(x) for x in tensors(pairs, augment=True))


model = TextLanguage()
common.train(model, batches, epochs=32, steps=steps, rate=2e-3)
common.save(folder, model, ["tokens", "mask"], calib[:2], eval_set[:2], eval_set[2], opset=13,
            dynamic_axes={"tokens": {0: "batch", 1: "length"}, "mask": {0: "batch", 1: "length"}, "logits": {0: "batch"}})
