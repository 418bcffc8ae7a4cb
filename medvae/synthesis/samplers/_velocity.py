"""A small velocity field for rectified flow, trained on few points: as far from a Gaussian as held-out ones allow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import silu

from medvae.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Examples = tuple[Array, Array, Array]  # x_t, the velocity that f is to give there, time and class

_HIDDEN = 32
_DIRECTIONS = (1, 2, 4, 8)  # numbers of them that are compared, and the largest allowed
_TIMES = 2  # frequencies of the time embedding
_RATE, _DECAY = 5e-3, 1e-2  # of AdamW
_BATCH = 128
_EVERY, _LONGEST, _PATIENCE = 20, 800, 400  # training steps
_LOOKS = 32  # noise and time draws of each held-out scan
_WITHOUT_CLASS = 0.2  # share of the examples that are shown without their class
_STEPS = 32  # of the integration


@dataclass(frozen=True, eq=False)
class Points:
    """Training scans in the span.

    Attributes:
        mean: `(m, k)`.
        noise: posterior standard deviations, `(m, k)`.
        classes: one-hot, `(m, c)`; zeros for a class that is too small.
    """

    mean: Array = field(repr=False)
    noise: Array = field(repr=False)
    classes: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Velocity:
    """v(x, t, c) = a(t)·x + f(x, t, c) with a(t) = (2t − 1)/(t² + (1 − t)²) and a perceptron f with two hidden layers.

    a(t)·x is the velocity E[x₁ − x₀ | x_t = x] between two standard Gaussians: with f = 0 the flow is the identity, and
    a point is N(0, I).

    Attributes:
        layers: weights `(in, out)` and biases `(out,)` of f; none for no directions.
    """

    layers: Sequence[tuple[Array, Array]] = field(repr=False)

    def flow(self, start: Array, classes: Array) -> Array:
        """The end x₁ of dx = v dt from x₀ = `start` `(k,)`, by Heun's method."""
        x, step = start.astype(np.float32), np.float32(1 / _STEPS)
        for i in range(_STEPS if self.layers else 0):
            first = self._at(x, i / _STEPS, classes)
            second = self._at(x + step * first, (i + 1) / _STEPS, classes)
            x = np.asarray(x + step / 2 * (first + second), np.float32)
        return x

    def _at(self, x: Array, t: float, classes: Array) -> Array:
        time = np.array([t], np.float32)
        h = np.concatenate([x, _embedded(time), classes])
        for weight, bias in self.layers[:-1]:
            h = h @ weight + bias
            h = h / 2 * (1 + np.tanh(h / 2))  # silu
        weight, bias = self.layers[-1]
        return np.asarray(_straight(time) * x + h @ weight + bias, np.float32)


@dataclass(frozen=True)
class Choice:
    """What held-out scans favour.

    Attributes:
        directions: that the field moves, the leading ones; 0 for the Gaussian.
        steps: of its training.
        gain: by which the held-out loss is lower than that of the Gaussian, as a share.
    """

    directions: int
    steps: int
    gain: float


def choose(folds: Sequence[tuple[Points, Points]], *, seed: int) -> Choice:
    """How many directions, of at most `k`, and how many training steps lower the loss of held-out scans most.

    Steps are then as few as leave the loss within two standard errors of the lowest, and not above that of the
    Gaussian (after the rule of one standard error of Breiman et al., 1984). The error is that of the mean difference
    over scans. So there are none, and a Gaussian, where nothing else is known to be better.

    Args:
        folds: training scans and held-out ones, each pair in a span of its own, all of `k` directions.
        seed: of weights and examples.
    """
    k = folds[0][0].mean.shape[1]
    if k == 0:
        return Choice(0, 0, 0.0)
    counts = [*(one for one in _DIRECTIONS if one < k), k]
    with one_thread():
        losses = _held_out(folds, counts, np.random.default_rng([seed, 0]))
    gains = losses[0] - losses  # (times, counts, scans)
    steps, best = np.unravel_index(int(gains.mean(axis=2).argmax()), gains.shape[:2])
    of_best = gains[:, best]
    behind = of_best[steps] - of_best
    errors = 2 * behind.std(axis=1, ddof=1) / np.sqrt(behind.shape[1])
    enough = (behind.mean(axis=1) <= errors) & (of_best.mean(axis=1) >= 0)
    chosen = int(np.flatnonzero(enough)[0])
    if chosen == 0:
        return Choice(0, 0, 0.0)
    share = float(of_best[chosen].mean() / losses[0, best].mean())
    return Choice(counts[best], chosen * _EVERY, share)


def train(points: Points, choice: Choice, *, seed: int) -> Velocity:
    """The field of all training scans, whose points have as many directions as were chosen."""
    if choice.steps == 0:
        return Velocity(())
    with one_thread():
        rng = np.random.default_rng([seed, 1])
        layers = _start(points, 1, rng)
        for _ in _trained(layers, [points], [choice.directions], rng, steps=choice.steps):
            pass
    return Velocity(
        [(weight[0].detach().numpy().copy(), bias[0, 0].detach().numpy().copy()) for weight, bias in layers]
    )


Layers = list[tuple[torch.Tensor, torch.Tensor]]  # weights `(fields, in, out)` and biases `(fields, 1, out)`


def _held_out(
    folds: Sequence[tuple[Points, Points]], counts: Sequence[int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Loss of each held-out scan before training and after every `_EVERY` steps, `(times, counts, scans)`.

    One field per fold and number of directions; all are trained at once. It ends when none gets better.
    """
    held = [_examples(one, np.repeat(np.arange(len(one.mean)), _LOOKS), rng, even=True) for _, one in folds]
    longest = max(len(one[0]) for one in held)
    padded = [(_padded(x, longest), _padded(target, longest), _padded(more, longest)) for x, target, more in held]
    layers = _start(folds[0][0], len(folds) * len(counts), rng)
    losses: list[NDArray[np.float64]] = []
    for _ in _trained(layers, [one for one, _ in folds], counts, rng, steps=_LONGEST):
        with torch.no_grad():
            squares = _loss(layers, padded, counts).reshape(len(folds), len(counts), -1, _LOOKS).mean(dim=3)
        known = [one[:, : len(at[0]) // _LOOKS] for one, at in zip(squares.double(), held, strict=True)]
        losses.append(torch.cat(known, 1).numpy())
        means = np.stack(losses).mean(axis=2) - losses[0].mean(axis=1)
        if (len(means) - 1 - int(means.min(axis=1).argmin())) * _EVERY >= _PATIENCE:
            break
    return np.stack(losses)


def _trained(
    layers: Layers, parts: Sequence[Points], counts: Sequence[int], rng: np.random.Generator, *, steps: int
) -> Iterator[int]:
    """Train the fields in place; yields before the first step and after every `_EVERY` steps."""
    optimiser = torch.optim.AdamW([one for layer in layers for one in layer], _RATE, weight_decay=_DECAY, fused=True)
    yield 0
    for step in range(1, steps + 1):
        batch = [_examples(one, rng.integers(len(one.mean), size=_BATCH), rng, even=False) for one in parts]
        optimiser.zero_grad()
        _loss(layers, batch, counts).mean(dim=1).sum().backward()
        optimiser.step()
        if step % _EVERY == 0:
            yield step


def _examples(points: Points, rows: NDArray[np.intp], rng: np.random.Generator, *, even: bool) -> Examples:
    """Examples of the scans `rows`.

    Args:
        points: the scans.
        rows: of the scans, any number of times each.
        rng: of x₀, t and the draws of the posteriors.
        even: times evenly spread over the draws of a scan, with its class.
    """
    shape = (len(rows), points.mean.shape[1])
    end = points.mean[rows] + points.noise[rows] * rng.standard_normal(shape, dtype=np.float32)
    start = rng.standard_normal(shape, dtype=np.float32)
    classes = points.classes[rows]
    if even:
        t = ((np.arange(len(rows))[:, None] % _LOOKS + 0.5) / _LOOKS).astype(np.float32)
    else:
        t = rng.random((len(rows), 1), dtype=np.float32)
        classes = classes * (rng.random((len(rows), 1)) > _WITHOUT_CLASS).astype(np.float32)
    x = np.asarray(start + t * (end - start), np.float32)
    target = np.asarray(end - start - _straight(t) * x, np.float32)
    return x, target, np.concatenate([_embedded(t), classes], 1)


def _loss(layers: Layers, batch: Sequence[Examples], counts: Sequence[int]) -> torch.Tensor:
    """Squared error summed over the first directions, as many as each of `counts`, `(parts · counts, examples)`."""
    k = batch[0][0].shape[1]
    shown = torch.tensor([[float(i < one) for i in range(k)] for one in counts])[:, None].repeat(len(batch), 1, 1)
    x, target, more = (
        torch.from_numpy(np.stack([one[part] for one in batch])).repeat_interleave(len(counts), 0) for part in range(3)
    )
    h = torch.cat([x * shown, more], 2)
    for weight, bias in layers[:-1]:
        h = silu(torch.baddbmm(bias, h, weight))
    weight, bias = layers[-1]
    return ((torch.baddbmm(bias, h, weight) - target) * shown).square().sum(dim=2)


def _start(points: Points, fields: int, rng: np.random.Generator) -> Layers:
    """Weights of variance 1/in, the same in all fields; zeros in the last layer, so that f = 0."""
    k = points.mean.shape[1]
    size = k + 1 + 2 * _TIMES + points.classes.shape[1]
    layers = []
    for inputs, outputs, scale in ((size, _HIDDEN, 1.0), (_HIDDEN, _HIDDEN, 1.0), (_HIDDEN, k, 0.0)):
        weight = rng.standard_normal((inputs, outputs), dtype=np.float32) * np.float32(scale / np.sqrt(inputs))
        both = torch.from_numpy(weight).repeat(fields, 1, 1), torch.zeros(fields, 1, outputs)
        layers.append((both[0].requires_grad_(), both[1].requires_grad_()))
    return layers


def _straight(t: Array) -> Array:
    """a(t)."""
    return np.asarray((2 * t - 1) / (t**2 + (1 - t) ** 2), np.float32)


def _embedded(t: Array) -> Array:
    """t, sin and cos, along the last axis."""
    angles = np.concatenate([np.float32(np.pi * f) * t for f in range(1, _TIMES + 1)], -1)
    return np.concatenate([t, np.sin(angles), np.cos(angles)], -1).astype(np.float32)


def _padded(rows: Array, count: int) -> Array:
    return np.pad(rows, [(0, count - len(rows)), (0, 0)])
