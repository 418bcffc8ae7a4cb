"""Distance between the scan and its reconstruction, in prepared intensities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from medvae.anomaly.base_map import BaseMap
from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.base_map import MapArrays
    from medvae.anomaly.inference import Inference


class Settings(Frozen):
    """Options of the map."""

    sign: Literal["both", "bright", "dark"] = Field(
        "both", description="bright: only where the scan is brighter than expected; dark: only darker; both: either"
    )


class Map(BaseMap):
    """|x − x̂|, or its positive or negative part; the mean over channels."""

    UNIT = "a.u."

    def map(self, inference: Inference, arrays: MapArrays) -> NDArray[np.float32]:
        """The map of one scan."""
        values: NDArray[np.float32] = _part(inference.residual, self.settings.sign).mean(axis=0)
        return values


def _part(residual: NDArray[np.float32], sign: str) -> NDArray[np.float32]:
    if sign == "both":
        return np.abs(residual)
    part: NDArray[np.float32] = np.maximum(residual if sign == "bright" else -residual, np.float32(0))
    return part
