"""Base of the maps that combine others: how rare each of their values is in healthy scans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medvae.anomaly.base_map import BaseMap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays, Healthy, MapArrays
    from medvae.anomaly.inference import Inference

_LOWEST, _STEP, _STEPS = -5.0, 0.05, 1100  # bins in which the values of a witness are counted, before its scale
_USUAL, _RARE = 1e-2, 1e-4  # the tail is extended beyond the second along its slope between the two
_RIM_MM = 2.0  # so near to the border of the foreground a mask may hold dura or lack brain


class Fused(BaseMap):
    """Base of maps that are made of −ln P_k: P_k is the share of healthy voxels with at least the value of witness k.

    Beyond what one in 10⁴ healthy voxels reaches, ln P_k is extrapolated with its slope between one in 10² and one in
    10⁴. P_k is no smaller than among the training scans: their own networks fit them too well, but they are more, and
    of more kinds of people, than a few scans for calibration. The map is 0 within 2 mm of the border of the foreground,
    where masks differ. A map derives from this class, has `USES`, its witnesses, and implements `combine`.
    """

    UNIT = "nats"
    USES_LEFT_OUT = True

    def statistics(self, inference: Inference, arrays: MapArrays) -> Arrays:
        """How many foreground voxels each witness has in each bin."""
        inside = inference.foreground
        return {name: _counts(one.map[inside]) for name, one in arrays.used.items()}

    def fit(self, healthy: Healthy) -> Arrays:
        """−ln P at the lower end of each bin, by witness: the lower one of these scans' and the training scans'.

        Of a single healthy scan, left out, nothing is counted: then it is that of the training scans.
        """
        counted = {name: one.total for name, one in healthy.moments.items()}
        found = {name: _surprise(counts) for name, counts in counted.items()}
        before = healthy.training or found
        return {
            name: np.minimum(one, before[name]) if counted[name].any() else before[name] for name, one in found.items()
        }

    def combine(self, surprises: Mapping[str, NDArray[np.float32]], inference: Inference) -> NDArray[np.float32]:
        """One map of the −ln P_k of some witnesses, all `(X, Y, Z)`."""
        raise NotImplementedError

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        deep = within(inference.foreground, spacing=inference.prepared.grid.spacing)
        return np.where(deep, self.combine(self.surprises(inference, arrays), inference), np.float32(0))

    def surprises(self, inference: Inference, arrays: MapArrays) -> dict[str, NDArray[np.float32]]:
        """−ln P_k by witness, `(X, Y, Z)`, 0 outside the foreground: what the map is made of."""
        inside, ends = inference.foreground, _LOWEST + np.arange(_STEPS) * _STEP
        found = {name: np.zeros(inside.shape, np.float32) for name in arrays.used}
        for name, one in arrays.used.items():
            found[name][inside] = np.interp(one.map[inside], ends, arrays[name])
        return found


def within(foreground: NDArray[np.bool_], *, spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """The foreground without its rim: voxels whose centre is more than 2 mm away from that of any voxel outside."""
    if foreground.all():
        return foreground
    deep: NDArray[np.bool_] = ndimage.distance_transform_edt(foreground, sampling=spacing) > _RIM_MM
    return deep


def soft_maximum(values: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """ln of the mean of their exponentials, all of one shape: −ln of the harmonic mean of P where these are −ln P."""
    highest = np.max(values, axis=0)  # taken out, so that nothing overflows
    mean = np.mean([np.exp(one - highest) for one in values], axis=0)
    result: NDArray[np.float32] = highest + np.log(mean).astype(np.float32)
    return result


def _counts(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Values in each bin; those below the first are in the first, those beyond the last in the last."""
    places = np.clip((values - _LOWEST) / _STEP, 0, _STEPS - 1).astype(np.intp)
    return np.bincount(places, minlength=_STEPS)


def _surprise(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """−ln of the share of values in a bin or above, `(bins,)`; where values are rare, along a straight line.

    A witness that is nearly always silent has no slope: beyond the bin of its silence less than one value in 10⁴ lies.
    0 throughout where nothing was counted: of one healthy scan, left out, none is left.
    """
    if not counts.sum():
        return np.zeros(_STEPS)
    share = np.cumsum(counts[::-1])[::-1] / counts.sum()
    usual, rare = (int(np.flatnonzero(share >= least)[-1]) for least in (_USUAL, _RARE))
    if usual == rare and share[rare] > 1 - _USUAL:
        return np.where(np.arange(_STEPS) > rare, -np.log(_RARE), 0.0)
    slope = np.log(share[usual] / share[rare]) / max(rare - usual, 1)
    beyond = np.maximum(np.arange(_STEPS) - rare, 0)
    surprise: NDArray[np.float64] = -np.log(np.maximum(share, share[rare])) + slope * beyond
    return surprise
