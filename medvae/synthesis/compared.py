"""An image compared with all training scans: as it is, with the scans registered onto it, and block by block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medvae.synthesis.nearest import find_nearest
from medvae.synthesis.regions import Regions
from medvae.synthesis.registered import RegisteredScans

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medvae.synthesis.nearest import Nearest, TrainingImages


@dataclass(frozen=True)
class Compared:
    """What an image is nearest to.

    Attributes:
        near: the nearest training scan; None where there is none.
        registered: the nearest one after registration; None where none was registered.
        blocks: the nearest one in each block of the grid; empty where unknown.
    """

    near: Nearest | None
    registered: Nearest | None
    blocks: tuple[Nearest, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Training scans, ready to be compared with images.

    Attributes:
        images: on the model's grid.
        registered: on a coarse grid.
        regions: in blocks.
    """

    images: TrainingImages = field(repr=False)
    registered: RegisteredScans = field(repr=False)
    regions: Regions = field(repr=False)

    @classmethod
    def of(cls, images: TrainingImages) -> Comparison:
        """The comparison with training scans."""
        return cls(images, RegisteredScans.of(images), Regions.of(images))

    def compare(
        self,
        image: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        without: str | None = None,
        register: bool = True,
        divide: bool = True,
    ) -> Compared:
        """Compare an image with the scans, after the small move that brings it nearest to one of them.

        Args:
            image: `(1, X, Y, Z)`, prepared intensities, background outside its mask.
            mask: bool `(1, X, Y, Z)`.
            without: the scans of this subject are left out.
            register: whether scans are registered, too, which takes a second per brain.
            divide: whether they are compared block by block, which takes milliseconds per training scan.
        """
        moved, inside = self.images.moved(image, mask, without=without)
        distances = self.images.distances(moved, inside)
        near = find_nearest(distances, self.images.ids, subjects=self.images.subjects, without=without)
        registered = self.registered.nearest(moved, distances, without=without) if register else None
        blocks = self.regions.nearest(moved, inside, without=without) if divide else ()
        return Compared(near, registered, blocks)
