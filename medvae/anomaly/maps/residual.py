"""Distance between the scan and its reconstruction, in prepared intensities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from medvae.settings import Frozen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference

UNIT = "a.u."


class Settings(Frozen):
    """Options of the map."""

    sign: Literal["both", "bright", "dark"] = Field(
        "both", description="bright: only where the scan is brighter than expected; dark: only darker; both: either"
    )


def anomaly_map(inference: Inference, reference: Reference, settings: Settings) -> NDArray[np.float32]:
    """|x − x̂|, or its positive or negative part."""
    residual = inference.residual
    if settings.sign == "both":
        return np.abs(residual)
    return np.maximum(residual if settings.sign == "bright" else -residual, np.float32(0))
