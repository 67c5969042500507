"""Prints the values of gptq_test.cpp: GPTQ as Algorithm 1 of arXiv 2210.17323 has it (the upper Cholesky factor of the inverse), and exhaustive
search. python3 tests/passes/gptq_reference.py (NumPy)."""
import itertools
import numpy as np

rng = np.random.default_rng(7)


def moments(k, samples):
    x = rng.integers(-3, 4, (k, samples)).astype(float)
    x[1] += 2 * x[0]
    x[3] -= x[2]
    return x @ x.T


def gptq(w, h, scale, low, high, damp):
    w, h = w.copy(), h + damp * np.mean(np.diag(h)) * np.eye(len(h))
    u = np.linalg.cholesky(np.linalg.inv(h)).T  # upper: inv(h) = uᵀu
    codes = np.zeros(w.shape, int)
    for i in range(w.shape[1]):
        codes[:, i] = np.clip(np.rint(w[:, i] / scale), low, high)
        error = (w[:, i] - codes[:, i] * scale) / u[i, i]
        w[:, i:] -= np.outer(error, u[i, i:])
    return codes


def flat(name, a):
    print(f"{name}: {{{', '.join(f'{v:g}' for v in np.asarray(a).ravel())}}}")


h = moments(8, 20)
w = rng.integers(-30, 31, (3, 8)) / 10
scale = np.abs(w).max(1) / 7
flat("h", h), flat("weights", w)
flat("codes in order", gptq(w, h, scale, -8, 7, 0.01))
order = np.argsort(-np.diag(h), kind="stable")
back = np.argsort(order, kind="stable")
flat("codes by energy", gptq(w[:, order], h[np.ix_(order, order)], scale, -8, 7, 0.01)[:, back])

h = moments(6, 10)
w = rng.integers(-30, 31, (4, 6)) / 10
flat("small h", h), flat("small weights", w)
damped = h + 0.01 * np.mean(np.diag(h)) * np.eye(6)
best = []
for row in w:
    grid = np.abs(row).max() / 1.0  # int2: codes −2 to 1
    e = row - np.array(list(itertools.product(range(-2, 2), repeat=6))) * grid
    best.append(np.min(np.einsum("ni,ij,nj->n", e, damped, e)))
flat("least errors", best)

# The least errors that any scale leaves, of either sign: for codes c it is wᵀHw − (cᵀHw)² / cᵀHc.
codes = np.array([c for c in itertools.product(range(-2, 2), repeat=6) if any(c)])
price = np.einsum("ni,ij,nj->n", codes, damped, codes)
either, positive = [], []
for row in w:
    along = codes @ damped @ row
    left = row @ damped @ row - along**2 / price
    either.append(left.min()), positive.append(left[along > 0].min())
flat("least errors of any scale", either), flat("of a positive one", positive)
