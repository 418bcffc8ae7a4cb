"""What a scan is like as a whole: a few numbers by which one of another scanner or protocol differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage, stats

from medvae.prepare.native import only_channel
from medvae.prepare.noise import noise_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference

ALARM = 1e-4  # share of scans like the healthy ones that a trait warns of wrongly
LEAST = 0.05  # smallest spread of a trait, as a share of it: healthy scans that happen to agree prove little
_WORDS = {
    "contrast": "spread of intensities",
    "sharpness": "sharpness (edges per mm)",
    "noise": "noise",
    "latent": "distance of the latent from the training scans",
}


def scan_traits(inference: Inference) -> dict[str, float]:
    """The traits of one scan, all positive.

    - `contrast`: SD of the prepared intensities in the foreground.
    - `sharpness`: mean length of their gradient per mm, at least a voxel away from the edge of the foreground.
    - `noise`: σ of white noise (`medvae.prepare.noise`).
    - `latent`: root mean square of the posterior mean, each unit standardised over the training scans.
    """
    image, mask = only_channel(inference.prepared.image), inference.foreground
    inner = ndimage.binary_erosion(mask)
    inner = inner if inner.any() else mask
    slopes = np.gradient(image, *inference.prepared.grid.spacing)
    steep = np.sqrt(sum(np.square(one) for one in slopes))
    return {
        "contrast": float(image[mask].std()),
        "sharpness": float(steep[inner].mean()),
        "noise": noise_of(image, mask),
        "latent": _latent_distance(inference),
    }


def unlike(scan: Mapping[str, float], healthy: Mapping[str, NDArray[np.float32]]) -> tuple[str, ...]:
    """One warning for each trait that lies outside what the healthy scans let one expect of another one.

    On logarithms; median and MAD stand for mean and SD, which is at least `LEAST`, and the limit is that of a normal
    prediction interval, |z| > t(n − 1) √(1 + 1/n): with few healthy scans it is wide.

    Args:
        scan: the traits of a scan.
        healthy: those of the n healthy scans, `(n,)` by name.
    """
    return tuple(text for name, values in healthy.items() if (text := _warning(name, scan[name], values)))


def _warning(name: str, value: float, healthy: NDArray[np.float32]) -> str:
    if healthy.size < 3:
        return ""
    logs, own = np.log(np.maximum(healthy.astype(np.float64), 1e-9)), np.log(max(value, 1e-9))
    middle = float(np.median(logs))
    z = float((own - middle) / max(float(stats.median_abs_deviation(logs, scale="normal")), LEAST))
    limit = stats.t.ppf(1 - ALARM / 2, healthy.size - 1) * np.sqrt(1 + 1 / healthy.size)
    if abs(z) <= limit:
        return ""
    ratio = f"{np.exp(own - middle):.2g} times that of the healthy scans (z = {z:.1f})"
    return f"unlike the healthy scans: {_WORDS[name]} is {ratio}; z and p may be wrong"


def _latent_distance(inference: Inference) -> float:
    code = inference.posterior.mean[0].cpu().numpy()
    known = inference.model.latents.mean
    if len(known) < 2:
        return float(np.sqrt(np.mean(np.square(code))))
    spread = np.maximum(known.std(axis=0), np.float32(1e-3))
    return float(np.sqrt(np.mean(np.square((code - known.mean(axis=0)) / spread))))
