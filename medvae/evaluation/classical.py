"""The classical arm: random augmentation on the fly, after the recipe of nnU-Net, from MONAI's transforms.

Steps, their order, probabilities and ranges are those of nnU-Net v2 (Isensee et al., Nature Methods 2021): rotation,
scaling, noise, blur, brightness, contrast, low resolution, gamma of the inverted and of the plain image. Two things
differ: what comes from beyond the grid is the nearest voxel of its edge, and only the left-right axis is mirrored, and
only where the labels do not tell left from right.
"""

from __future__ import annotations

import math
from typing import Any

from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandSimulateLowResolutiond,
)

IMAGE, LABEL = "image", "label"
_TURN = (math.radians(30),) * 3
_SCALE = ((-0.3, 0.4),) * 3


def classical(*, mirror: bool, binary: bool) -> Any:
    """The chain, a MONAI transform of a dictionary with `image` and, for segmentation, `label`.

    Args:
        mirror: flip left and right with probability 0.5; needs the grid's first axis to be left-right.
        binary: for shapes, whose values mean nothing: spatial steps only, by nearest neighbour.
    """
    mode = ("nearest" if binary else "bilinear", "nearest")
    spatial = [
        _affine(rotate_range=_TURN, mode=mode),
        _affine(scale_range=_SCALE, mode=mode),
        *([RandFlipd((IMAGE, LABEL), prob=0.5, spatial_axis=0, allow_missing_keys=True)] if mirror else []),
    ]
    return Compose([*spatial, *([] if binary else _intensities())])


def _affine(**how: Any) -> Any:
    keys, padding = (IMAGE, LABEL), ("border", "border")
    return RandAffined(keys, prob=0.2, padding_mode=padding, allow_missing_keys=True, **how)


def _intensities() -> list[Any]:
    """What changes values; prepared intensities have a standard deviation near 1, as nnU-Net's."""
    sigma = {f"sigma_{axis}": (0.5, 1.0) for axis in "xyz"}
    return [
        RandGaussianNoised(IMAGE, prob=0.1, std=math.sqrt(0.1)),
        RandGaussianSmoothd(IMAGE, prob=0.2, **sigma),
        RandScaleIntensityd(IMAGE, factors=0.25, prob=0.15),
        RandScaleIntensityFixedMeand(IMAGE, factors=0.25, preserve_range=True, prob=0.15),
        RandSimulateLowResolutiond(IMAGE, prob=0.25, zoom_range=(0.5, 1.0)),
        RandAdjustContrastd(IMAGE, prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
        RandAdjustContrastd(IMAGE, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    ]
