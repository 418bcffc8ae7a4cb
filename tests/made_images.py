"""Small prepared scans for tests of the evaluation of synthetic ones: a bright ball somewhere, and its label map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from medvae.evaluation.image_set import ImageSet

SHAPE = (16, 12, 12)


def made(count: int, *, seed: int = 0, classes: tuple[str | None, ...] = (None,), blur: float = 0.0) -> ImageSet:
    """Balls (label 1) in noise; those of the second class, if any, are darker than what is around them."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"))
    images, maps, labels = [], [], [classes[i % len(classes)] for i in range(count)]
    for label in labels:
        centre = np.array(SHAPE)[:, None, None, None] / 2 + rng.uniform(-1.5, 1.5, (3, 1, 1, 1))
        ball = np.square(grid - centre).sum(axis=0) < rng.uniform(2.5, 3.5) ** 2
        sign = -1 if len(classes) > 1 and label == classes[1] else 1
        image = 2.0 * sign * ball + 0.3 * rng.normal(size=SHAPE)
        images.append(ndimage.gaussian_filter(image, blur) if blur else image)
        maps.append(ball)
    ids = tuple(f"s{seed}-{i}" for i in range(count))
    return ImageSet(
        ids,
        ids,
        tuple(labels),
        ids,
        np.stack(images)[:, None].astype(np.float16),
        np.ones((count, 1, *SHAPE), bool),
        np.stack(maps)[:, None].astype(np.int16),
    )
