"""What the objects of one scan show, as plain data, and the UIDs that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from pydicom.sr.coding import Code

from medvae import __version__
from medvae.io.nifti.file import NOTICE

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAKER = "medvae"
CREATOR = f"{MAKER}^"  # as the name of a person
SCHEME = "99MEDVAE"  # designator of our own codes
_LEAST = 1e-6  # a limit of 0 has no window
WINDOW = 3.0  # maps are shown from 0 to this many healthy limits, as in the pictures
_LONGEST = 64  # characters of a Long String
_UNITS = {
    "z": Code("{z-score}", "UCUM", "z-score"),
    "nats": Code("{nats}", "UCUM", "nats"),
    "a.u.": Code("[arb'U]", "UCUM", "arbitrary unit"),
    "probability": Code("1", "UCUM", "no units"),
}


@dataclass(frozen=True)
class Region:
    """One candidate.

    Attributes:
        number: its label in `Content.labels`.
        lps: position of the peak, mm, x to the left, y to the back, z to the head.
        side: left, right or midline of the brain; None where it is not known.
        volume_ml: of the region.
        peak, mean: of the map in the region, in its unit.
        p: conformal p of its mass.
    """

    number: int
    lps: tuple[float, float, float]
    side: str | None
    volume_ml: float
    peak: float
    mean: float
    p: float


@dataclass(frozen=True, eq=False)
class Content:
    """A map and its candidates, on the grid of the series.

    Attributes:
        map: name of the map.
        data: float32 `(columns, rows, slices)`, slices ascending along row cosines × column cosines.
        unit: of the map.
        limit: 99.9% of healthy voxels lie below.
        status: what the numbers are based on, e.g. "calibrated, n=25".
        labels: uint16, same shape: 0 = none, k = candidate number k.
        regions: the candidates.
        model: hash of the model.
    """

    map: str
    data: NDArray[np.float32] = field(repr=False)
    unit: str
    limit: float
    status: str
    labels: NDArray[np.uint16] = field(repr=False)
    regions: tuple[Region, ...]
    model: str

    @property
    def high(self) -> float:
        """Where the window of the map ends, which begins at 0; above 0."""
        return WINDOW * max(self.limit, _LEAST)

    @property
    def algorithm(self) -> str:
        """The algorithm's name."""
        return f"{MAKER} {self.map}"

    @property
    def unit_code(self) -> Code:
        """The map's unit in UCUM."""
        return _UNITS.get(self.unit) or Code(f"{{{self.unit}}}", "UCUM", self.unit)

    @property
    def parameters(self) -> dict[str, str]:
        """What the numbers are based on and may be used for."""
        return {"model": self.model, "reference": self.status, "notice": NOTICE}

    def digest(self) -> str:
        """SHA-256 of all that the objects are made of."""
        facts = (__version__, self.map, self.unit, self.limit, self.status, self.regions, self.model)
        found = sha256(repr((facts, self.data.shape)).encode())
        for array in (self.data, self.labels):
            found.update(np.ascontiguousarray(array.T).data)
        return found.hexdigest()


def equipment(model: str) -> dict[str, str]:
    """Arguments of highdicom that name the maker: the device's serial number is the model."""
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": __version__,
        "device_serial_number": model[:_LONGEST],
    }


def uid(*parts: str) -> str:
    """A UID that is the same for the same parts and no other (2.25 and a UUID of version 5; PS3.5, B.2)."""
    return f"2.25.{uuid5(NAMESPACE_OID, chr(10).join(parts)).int}"


def text(*parts: str) -> str:
    """A Long String of some parts and the notice, which is never cut."""
    return f"{', '.join(parts)[: _LONGEST - len(NOTICE) - 2]}; {NOTICE}"
