"""Prints the values of sparsegpt_test.cpp: SparseGPT as Algorithm 1 of arXiv 2301.00774 has it (rows of the upper Cholesky factor of the inverse,
masks chosen for blocks of columns or for each group of N:M), Wanda's masks (arXiv 2306.11695), and the exact fit of what stays.
python3 tests/passes/sparsegpt_reference.py (NumPy)."""
import numpy as np

rng = np.random.default_rng(11)


def moments(k, samples):
    x = rng.integers(-3, 4, (k, samples)).astype(float)
    x[1] += 2 * x[0]
    x[3] -= x[2]
    return x @ x.T


def sparsegpt(w, h, damp, sparsity=None, n=0, m=0, block=128):
    w, h = w.copy(), h + damp * np.mean(np.diag(h)) * np.eye(len(h))
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    keep = np.ones(w.shape, bool)
    for start in range(0, w.shape[1], block):
        end = min(w.shape[1], start + block)
        price = w[:, start:end] ** 2 / np.diag(u)[start:end] ** 2
        if not m:
            lowest = np.argsort(price, axis=None, kind="stable")[: round(sparsity * price.size)]
            keep[:, start:end].reshape(price.shape).flat[lowest] = False
            mask = np.ones(price.size, bool)
            mask[lowest] = False
            keep[:, start:end] = mask.reshape(price.shape)
        for j in range(start, end):
            if m and j % m == 0:
                price = w[:, j : j + m] ** 2 / np.diag(u)[j : j + m] ** 2
                for row, p in enumerate(price):
                    keep[row, j + np.argsort(p, kind="stable")[: len(p) - n]] = False
            error = np.where(keep[:, j], 0, w[:, j]) / u[j, j]
            w[:, j:] -= np.outer(error, u[j, j:])
            w[~keep[:, j], j] = 0
    return w, keep


def fit(w, keep, h, damp):
    h = h + damp * np.mean(np.diag(h)) * np.eye(len(h))
    out = np.zeros_like(w)
    for r in range(len(w)):
        i = keep[r]
        out[r, i] = np.linalg.solve(h[np.ix_(i, i)], h[i] @ w[r])
    return out


def flat(name, a):
    print(f"{name}: {{{', '.join(f'{v:.7g}' for v in np.asarray(a, float).ravel())}}}")


h = moments(8, 20)
w = rng.integers(-30, 31, (3, 8)) / 10 + 0.01 * rng.integers(1, 9, (3, 8))
flat("h", h), flat("weights", w)
flat("half", sparsegpt(w, h, 0.01, sparsity=0.5)[0])
two, keep = sparsegpt(w, h, 0.01, n=2, m=4)
flat("2:4", two)
flat("2:4 fitted", fit(w, keep, h, 0.01))
norms = np.sqrt(np.diag(h))
wanda = np.abs(w) * norms
kept = np.ones(w.shape, bool)
for row in range(len(w)):
    kept[row, np.argsort(wanda[row], kind="stable")[:4]] = False
flat("wanda", kept)
flat("magnitude", ~np.isin(np.arange(w.size), np.argsort(np.abs(w), axis=None, kind="stable")[:12]))
