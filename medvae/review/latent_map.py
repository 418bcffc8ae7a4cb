"""A map of a cohort: the two directions along which the codes of its scans differ most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

LATENT_MAP = "latent_map.json"


def latent_map(
    codes: NDArray[np.float32], ids: Sequence[str], *, labels: Sequence[str | None], validation: Collection[str]
) -> dict[str, Any]:
    """The first two principal components of the codes, through the eigenvectors of their N×N products.

    Each component's sign makes its largest coordinate positive, so that the same codes give the same map.

    Args:
        codes: posterior means, `(N, C, *latent)`.
        ids: of the scans.
        labels: class of each scan, or None.
        validation: ids of the scans that the weights were not fitted to.

    Returns:
        `shares`: of the variance, one per component; `scans`: id, x, y, class and role of each.
    """
    flat = codes.reshape(len(codes), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    places = np.zeros((len(codes), 2))
    places[:, : min(2, len(codes))] = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :2]
    places *= np.where(places[np.abs(places).argmax(axis=0), [0, 1]] < 0, -1, 1)
    shares = np.square(places).sum(axis=0) / max(float(np.square(flat).sum()), 1e-12)
    scans = [
        {"id": one, "x": _short(x), "y": _short(y), "class": label, "validation": one in validation}
        for one, (x, y), label in zip(ids, places, labels, strict=True)
    ]
    return {"shares": [_short(share) for share in shares], "scans": scans}


def _short(value: float) -> float:
    return float(f"{value:.5g}")
