"""A NIfTI file to be written, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medvae.io.formats.nifti import write

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from medvae.scan import Geometry

NOTICE = "research use only"
_LONGEST = 79  # bytes of a description


def described(*parts: str) -> str:
    """A description of some parts, the most important first, and the notice: the last parts make room for it."""
    text, end = ", ".join(parts), f"; {NOTICE}"
    room = _LONGEST - len(end)
    while len(text.encode()) > room and ", " in text:  # no number is cut
        text = text.rpartition(", ")[0]
    return text.encode()[:room].decode("utf-8", "ignore") + end


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """An image; see `medvae.io.nifti.write.write` for what its fields mean.

    Attributes:
        name: path below the output folder, ends in `.nii` or `.nii.gz`.
        data: `(X, Y, Z)`, float32, uint8, uint16 or int16.
        geometry: where its voxels lie.
        description: what it is and its unit, at most 79 bytes.
        limits: display range; the data's own if None.
        scale: what a reader makes of a stored number: number · scale[0] + scale[1].
    """

    name: str
    data: NDArray[np.float32] | NDArray[np.integer] = field(repr=False)
    geometry: Geometry
    description: str
    limits: tuple[float, float] | None = None
    scale: tuple[float, float] = (1.0, 0.0)

    def write(self, folder: Path) -> None:
        """Write it below `folder`."""
        text, limits, scale = self.description, self.limits, self.scale
        write(folder / self.name, self.data, self.geometry, description=text, limits=limits, scale=scale)
