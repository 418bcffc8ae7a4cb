"""The predicted foreground: right for codes that it was fitted to, and its penalty is that of the best prediction."""

from __future__ import annotations

import numpy as np

from medvae.synthesis import outline

N, SIZE = 24, 22
NOTHING = np.zeros((N, 0), np.float32)


def balls(codes: np.ndarray) -> np.ndarray:
    """Foregrounds `(n, 1, X, Y, Z)`: balls whose radius grows with the first dimension of the code."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 3, indexing="ij"))
    return np.stack([[np.square(grid).sum(axis=0) < (0.6 + 0.1 * code[0]) ** 2] for code in codes])


def codes(count: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32).clip(-2, 2)


def test_the_outline_of_a_new_code_is_predicted() -> None:
    fitted = outline.fit(codes(N, seed=0), balls(codes(N, seed=0)), NOTHING)
    fresh = codes(6, seed=1)
    for code, wanted in zip(fresh, balls(fresh), strict=True):
        got = fitted.mask(code, NOTHING[0])
        assert got.shape == wanted.shape
        assert 2 * (got & wanted).sum() / (got.sum() + wanted.sum()) > 0.93


def test_nothing_beyond_all_training_scans_is_foreground() -> None:
    known = balls(codes(N, seed=0))
    fitted = outline.fit(codes(N, seed=0), known, NOTHING)
    huge = fitted.mask(np.array([9, 0, 0], np.float32), NOTHING[0])
    assert huge.any()
    assert not (huge & ~known.any(axis=0)).any()


def test_codes_without_relation_to_the_outline_predict_the_mean() -> None:
    noise = codes(N, seed=3)
    fitted = outline.fit(noise, balls(codes(N, seed=0)), NOTHING)
    one, other = (fitted.mask(code, NOTHING[0]).sum() for code in noise[:2])
    assert abs(int(one) - int(other)) < 0.1 * one


def test_the_penalty_is_that_of_the_smallest_leave_one_out_error() -> None:
    """The closed form against refits without each scan."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(10, 4))
    targets = (features @ rng.normal(size=(4, 5)) + rng.normal(size=(10, 5))).astype(np.float32)
    gram = features @ features.T
    size = np.trace(gram) / len(gram)

    def error(penalty: float) -> float:
        total = 0.0
        for i in range(len(gram)):
            rest = [j for j in range(len(gram)) if j != i]
            inverse = np.linalg.inv(gram[np.ix_(rest, rest)] + penalty * np.eye(len(rest)))
            total += float(np.square(targets[i] - gram[i, rest] @ inverse @ targets[rest]).sum())
        return total

    best = min(outline._PENALTIES * size, key=error)
    assert np.allclose(outline._solver(gram, targets), np.linalg.inv(gram + best * np.eye(len(gram))))


def test_equal_codes_and_masks_without_an_outline() -> None:
    same = np.zeros((3, 2), np.float32)
    whole = np.ones((3, 1, 6, 6, 6), bool)
    assert outline.fit(same, whole, NOTHING[:3]).mask(same[0], NOTHING[0]).all()
    assert not outline.fit(same, ~whole, NOTHING[:3]).mask(same[0], NOTHING[0]).any()
