"""The maps of one scan on the model's grid, each computed once, and the score of a map."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.anomaly.base_map import BaseMap, MapArrays
from medvae.anomaly.configured import configured, is_costly, needs_alignment, needs_detector
from medvae.anomaly.reference import reference_of
from medvae.detector.network import USUAL_STEPS
from medvae.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.base_map import Arrays, Unit
    from medvae.anomaly.inference import Inference
    from medvae.anomaly.reference import Reference


@dataclass(frozen=True, eq=False)
class AnomalyMap:
    """One map of one scan on the model's grid.

    Attributes:
        name: of the map.
        values: float32 `(X, Y, Z)`, axes R, A, S; higher = less normal, 0 outside the foreground.
        unit: `z`, `nats` (per model voxel), `a.u.` or `probability`.
    """

    name: str
    values: NDArray[np.float32] = field(repr=False)
    unit: Unit

    def score(self, foreground: NDArray[np.bool_], *, top: float) -> float:
        """The mean over the `top` share (0 to 1) of the foreground voxels with the highest values.

        Args:
            foreground: bool `(X, Y, Z)` on the model's grid.
            top: `detect.top`.
        """
        inside = self.values[foreground]
        count = max(1, round(top * inside.size))
        return float(np.partition(inside, inside.size - count)[inside.size - count :].mean())


class ScanMaps:
    """The maps of one scan, each computed once, when it is first asked for.

    Args:
        inference: of the scan.
        methods: the maps, used ones before those that use them (`configured`).
        arrays: what each map's `fit` gave, by map name; a map without any needs none.
        scales: what the values of a map are divided by.
    """

    def __init__(
        self,
        inference: Inference,
        methods: Mapping[str, BaseMap],
        *,
        arrays: Mapping[str, Arrays],
        scales: Mapping[str, float] | None = None,
    ) -> None:
        self._methods, self._scales = methods, scales or {}
        self.arrays: dict[str, MapArrays] = {}
        for name, method in methods.items():
            used = {one: self.arrays[one] for one in method.USES}
            self.arrays[name] = MapArrays(method, inference, arrays=arrays.get(name, {}), used=used)

    def __getitem__(self, name: str) -> AnomalyMap:
        values = self.arrays[name].map / np.float32(self._scales.get(name, 1.0))
        return AnomalyMap(name, values, self._methods[name].UNIT)

    def pseudo_healthy(self, names: Iterable[str]) -> NDArray[np.float32] | None:
        """That of the first of these maps that has such an image, in prepared intensities `(C, X, Y, Z)`; else None."""
        images = (self.arrays[name].pseudo_healthy for name in names)
        return next((image for image in images if image is not None), None)


def scan_maps(
    names: Iterable[str],
    inference: Inference,
    reference: Reference,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> ScanMaps:
    """The maps of one scan, to be computed as they are asked for.

    Args:
        names: of the maps.
        inference: of the scan.
        reference: of the model.
        options: by map name; those of the Reference where a map has none here.

    Raises:
        SettingsError: an unknown map or option, a map that the Reference does not know and that needs it, or options
            other than those that its healthy statistics were computed with.
    """
    known = {name: one.options for name, one in reference.maps.items()}
    wanted = {**known, **(options or {})}
    methods = configured(names, wanted)
    for name, method in reversed(methods.items()):
        if not _needs_healthy(method):
            continue
        if name not in known:
            raise unknown_map(name, aligned=inference.model.preparation.aligned)
        if wanted[name] != known[name]:
            _require_same(name, method, configured([name], known)[name])
    arrays = {name: one.arrays for name, one in reference.maps.items()}
    scales = {name: one.scale for name, one in reference.maps.items()}
    return ScanMaps(inference, methods, arrays=arrays, scales=scales)


def anomaly_map(
    name: str,
    inference: Inference,
    reference: Reference | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> AnomalyMap:
    """Compute one map of one scan on the model's grid. `medvae.detect` does this, and brings it to the scan's own grid.

    Args:
        name: of the map.
        inference: of the scan (`medvae.infer`).
        reference: that of the model if None.
        options: of the map; those of the Reference if None.

    Returns:
        The map on the model's grid (axes R, A, S), not on the scan's own.

    Raises:
        ModelError: the model has no Reference.
        SettingsError: as `scan_maps`.

    Example:
        >>> prepared = medvae.prepare_scan(medvae.read("new-scans/case.nii.gz"), model.preparation)
        >>> medvae.anomaly_map("residual", medvae.infer(model, prepared)).unit
        'a.u.'
    """
    given = None if options is None else {name: options}
    return scan_maps([name], inference, reference or reference_of(inference.model), options=given)[name]


def unknown_map(name: str, *, aligned: bool) -> SettingsError:
    """The error of a map that a Reference does not know."""
    if needs_alignment(name) and not aligned:
        message = f"the map {name!r} compares voxel by voxel, and this model's scans are not aligned"
        return SettingsError(message, hint="use fused_unaligned, latent, residual or nll")
    if needs_detector(name):
        message = f"map {name!r} was not calibrated, or the model has no detector"
        return SettingsError(
            message, hint=f"calibrate the model again, or train one and set detector.steps={USUAL_STEPS}"
        )
    hint = f"calibrate the model and set detect.maps=[fused,{name}]" if is_costly(name) else "calibrate the model again"
    return SettingsError(f"map {name!r} was not calibrated", hint=hint)


def _require_same(name: str, wanted: BaseMap, known: BaseMap) -> None:
    if known.settings != wanted.settings:
        message = f"the healthy statistics of {name!r} were computed with ({known.settings!r}), not with "
        raise SettingsError(f"{message}({wanted.settings!r})", hint="calibrate the model with these options")


def _needs_healthy(method: BaseMap) -> bool:
    """Whether a map cannot be computed without numbers of healthy scans."""
    return method.STANDARDISED or type(method).fit is not BaseMap.fit
