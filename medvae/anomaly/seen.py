"""What the maps of healthy scans look like: scores, spread, display limit and upper end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from medvae.anomaly.extremes import Extremes, UpperEnd
from medvae.anomaly.reference import MapReference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.anomaly.anomaly_map import AnomalyMap
    from medvae.anomaly.base_map import Arrays

LIMIT = 0.999  # the display limit of a map is this quantile of healthy foreground voxels


@dataclass(eq=False)
class Seen:
    """What the maps of one name look like on healthy scans, in the order of the scans."""

    scores: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    ends: list[UpperEnd] = field(default_factory=list)

    def note(self, found: AnomalyMap, foreground: NDArray[np.bool_], *, top: float) -> None:
        """Add the map of one more scan."""
        inside = found.values[foreground]
        self.scores.append(found.score(foreground, top=top))
        self.squares.append(float(np.mean(inside**2)))
        self.limits.append(float(np.quantile(inside, LIMIT)))
        self.ends.append(UpperEnd.of_map(found.values, foreground))

    def of(self, places: Sequence[int]) -> Seen:
        """The same of the scans at these places."""
        scores, squares, limits = (
            [column[place] for place in places] for column in (self.scores, self.squares, self.limits)
        )
        return Seen(scores, squares, limits, [self.ends[place] for place in places])

    @property
    def scale(self) -> float:
        """The root mean square of the values; 1 where all are 0."""
        return float(np.sqrt(np.mean(self.squares))) or 1.0

    def reference(
        self,
        arrays: Arrays,
        options: Mapping[str, object],
        *,
        scale: float,
        subjects: NDArray[np.int32],
        voxel_ml: float,
    ) -> MapReference:
        """What the maps give, divided by `scale`, together with what they were computed with."""
        scores = np.sort(np.array(self.scores, np.float32) / scale)
        extremes = Extremes.of_scans(self.ends, subjects=subjects, scale=scale, voxel_ml=voxel_ml)
        return MapReference(arrays, scale, scores, float(np.mean(self.limits)) / scale, options, extremes)
