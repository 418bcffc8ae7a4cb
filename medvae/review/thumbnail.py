"""A small picture of a scan for the worklist: the axial slice through the highest voxel of its map."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.image import imsave
from scipy import ndimage

from medvae.io.files import atomic
from medvae.review.frame import Frame
from medvae.review.montage import COLOURS, colour_scale

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.review.montage import Picture

_SIDE = 112  # pixels of the longer side


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """A PNG to be written; coloured as the montage is, the patient's right on the left.

    Attributes:
        name: path below the output folder, ends in `.png`.
        picture: what the montage shows.
    """

    name: str
    picture: Picture

    def write(self, folder: Path) -> None:
        """Write it below `folder`, atomically."""
        with atomic(folder / self.name) as partial:
            partial.write_bytes(self.png())

    def png(self) -> bytes:
        """The bytes of the file."""
        picture = self.picture
        frame = Frame.around(picture.covered, picture.geometry)
        scan, heat, covered = (frame.cut(one) for one in (picture.scan, picture.heat, picture.covered))
        inside = np.where(covered, heat, -np.inf) if covered.any() else heat
        at = int(np.unravel_index(int(inside.argmax()), heat.shape)[2])
        low, high = np.percentile(scan[covered] if covered.any() else scan, (0.5, 99.5))
        grey = np.clip((scan[:, :, at] - low) / max(float(high - low), 1e-6), 0, 1)[..., None]
        colour = COLOURS(colour_scale(picture.limit)(heat[:, :, at]))
        mixed = grey * (1 - colour[..., 3:]) + colour[..., :3] * colour[..., 3:]
        file = BytesIO()
        imsave(file, _upright(mixed, frame.geometry.spacing), format="png", metadata={"Software": ""})
        return file.getvalue()


def _upright(plane: NDArray[np.float64], spacing: tuple[float, float, float]) -> NDArray[np.uint8]:
    """An axial plane `(R, A, colour)` as a picture: front up, right on the left, pixels square."""
    x, y = plane.shape[0] * spacing[0], plane.shape[1] * spacing[1]
    per_mm = _SIDE / max(x, y)
    zoom = (per_mm * spacing[0], per_mm * spacing[1], 1)
    shown = ndimage.zoom(plane, zoom, order=1, mode="nearest", grid_mode=True)
    pixels: NDArray[np.uint8] = np.rint(np.clip(shown, 0, 1).transpose(1, 0, 2)[::-1, ::-1] * 255).astype(np.uint8)
    return pixels
