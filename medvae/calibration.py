"""Making a Reference: normative statistics of healthy scans, and their leave-one-out scores.

Two passes over the scans. The first sums images and residuals. The second takes each scan out of the sums again, maps
it against the rest, and notes score, spread and upper quantile: a scan never sits in the reference that scores it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae import plugins
from medvae.errors import SettingsError
from medvae.inference import infer
from medvae.maps import anomaly_map
from medvae.plugins import suggest
from medvae.reference import Moments, Normal, Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from medvae.inference import Inference
    from medvae.model import Model
    from medvae.prepare import Prepared
    from medvae.settings import DetectSettings

LIMIT = 0.999  # the colour scale of a map ends at this quantile of healthy foreground voxels


@dataclass(eq=False)
class _Seen:
    """What the healthy maps of one name looked like."""

    scores: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)


def make_reference(
    model: Model,
    scans: Callable[[], Iterator[Prepared]],
    *,
    names: tuple[str, ...],
    calibrated: bool,
    detect: DetectSettings | None = None,
    on_scan: Callable[[], None] = lambda: None,
) -> Reference:
    """The Reference of a model from healthy scans.

    Args:
        model: its `reference` gives the prior: image statistics and residual pattern of the training scans. While a
            model is being made its reference is empty, and these scans are the training scans.
        scans: called twice; gives the same prepared scans each time.
        names: the maps to score; those that cannot be made without alignment are left out where scans are not aligned.
        calibrated: whether training had not seen these scans.
        detect: options of the maps, draws, and what makes a score; the model's settings if None.
        on_scan: called after each scan of each pass.
    """
    detect = detect or model.settings.detect
    spacing = model.preparation.grid.spacing
    aligned = model.preparation.aligned
    shape = model.preparation.settings.shape
    images, residuals = Moments.empty(shape), Moments.empty(shape)
    hashes: list[str] = []
    for prepared in scans():
        inference = infer(model, prepared)
        images.add(prepared.image[0], prepared.mask[0])
        residuals.add(inference.residual, prepared.mask[0])
        hashes.append(prepared.source_hash)
        on_scan()
    before = model.reference
    prior = None
    if calibrated:  # a second calibration is not shrunk towards the first
        prior = before.prior if before.calibrated else before.residual

    def without(inference: Inference | None) -> tuple[Normal | None, Normal | None]:
        """Image and residual statistics of all scans but this one."""
        if not aligned:
            return None, None
        image, residual = images, residuals
        if inference is not None:
            image = images.without(inference.prepared.image[0], inference.prepared.mask[0])
            residual = residuals.without(inference.residual, inference.prepared.mask[0])
        known = before.image if calibrated else image.normal(spacing=spacing)
        return known, residual.normal(spacing=spacing, prior=prior)

    names = tuple(n for n in names if aligned or not getattr(plugins.load("maps", n), "NEEDS_ALIGNMENT", False))
    seen = {name: _Seen() for name in names}
    bare = replace(
        empty_reference(model.hash, model.preparation.hash),
        top=detect.top,
        draws=detect.draws,
        n=len(hashes),
        calibrated=calibrated,
        scan_hashes=tuple(hashes),
    )
    for prepared in scans():
        inference = infer(model, prepared, draws=detect.draws)
        image, residual = without(inference)
        rest = replace(bare, image=image, residual=residual)
        for name in names:
            _note(seen[name], name, inference, rest, options=detect.options.get(name, {}))
        on_scan()
    scales = {n: float(np.sqrt(np.mean(seen[n].squares))) or 1.0 for n in names if n == "residual_z"}
    image, residual = without(None)
    return replace(
        bare,
        image=image,
        residual=residual,
        prior=prior,
        scales=scales,
        scores={n: np.sort(np.array(s.scores, np.float32) / scales.get(n, 1.0)) for n, s in seen.items()},
        limits={n: float(np.mean(s.limits)) / scales.get(n, 1.0) for n, s in seen.items()},
        options={n: _all_options(n, detect) for n in names},
    )


def _all_options(name: str, detect: DetectSettings) -> dict[str, Any]:
    """Options of a map with its defaults written out: a later version may have others."""
    return plugins.configure("maps", name, detect.options.get(name, {}))[1].model_dump(mode="json")


def _note(seen: _Seen, name: str, inference: Inference, rest: Reference, *, options: Mapping[str, Any]) -> None:
    found = anomaly_map(name, inference, rest, options=options)
    mask = inference.prepared.mask[0]
    inside = found.values[mask]
    seen.scores.append(found.score(mask, top=rest.top))
    seen.squares.append(float(np.mean(inside**2)))
    seen.limits.append(float(np.quantile(inside, LIMIT)))


def empty_reference(model_hash: str, preparation_hash: str) -> Reference:
    """A Reference of nothing: where a model begins."""
    return Reference(
        image=None,
        residual=None,
        prior=None,
        scales={},
        scores={},
        limits={},
        options={},
        top=0.01,
        draws=1,
        n=0,
        calibrated=False,
        model_hash=model_hash,
        preparation_hash=preparation_hash,
    )


def require_known(reference: Reference, wanted: DetectSettings) -> None:
    """Check that scales, limits and healthy scores were made the way that maps and scores are wanted.

    Raises:
        SettingsError: a map that the Reference does not know, or other options or another `top` than it was made with.
    """
    again = "measure healthy scans that way: `medvae calibrate MODEL INPUT --set "
    for key in ("top", "draws"):
        mine, theirs = getattr(reference, key), getattr(wanted, key)
        if mine != theirs:
            message = f"the Reference was made with detect.{key}={mine:g}, not {theirs:g}"
            raise SettingsError(message, hint=f"{again}detect.{key}={theirs:g}`")
    for name in wanted.maps:
        plugins.check("maps", name)
        if name not in reference.limits:
            raise _unknown(name, reference)
        known = plugins.configure("maps", name, reference.options.get(name, {}))[1]
        asked = plugins.configure("maps", name, wanted.options.get(name, {}))[1]
        for key in type(known).model_fields:
            mine, theirs = getattr(known, key), getattr(asked, key)
            if mine != theirs:
                message = f"the Reference was made with {name}.{key}={mine}, not {theirs}"
                raise SettingsError(message, hint=f"{again}detect.options.{name}.{key}={theirs}`")


def _unknown(name: str, reference: Reference) -> SettingsError:
    if getattr(plugins.load("maps", name), "NEEDS_ALIGNMENT", False):
        message = f"the map {name!r} compares voxel by voxel, and this model's scans are not aligned"
        return SettingsError(message, hint=suggest(name, tuple(reference.limits)))
    hint = "run `medvae calibrate` with this model again"
    return SettingsError(f"the Reference knows no map {name!r}; it was made without it", hint=hint)
