"""Making a Reference: normative statistics of healthy scans, and their leave-one-out scores.

Images are summed, then residuals, which look at the images' statistics. A last pass takes each scan out of the sums
again, maps it against the rest, and notes score, spread and upper quantile: a scan never sits in the reference that
scores it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medvae import plugins
from medvae.anomaly.anomaly_map import anomaly_map
from medvae.anomaly.inference import infer
from medvae.anomaly.maps import residual_z
from medvae.anomaly.reference import NAME, Moments, Normal, Reference, reference_of, with_reference
from medvae.errors import SettingsError
from medvae.plugins import suggest
from medvae.settings import configure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from medvae.anomaly.inference import Inference
    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.settings import DetectSettings

LIMIT = 0.999  # the colour scale of a map ends at this quantile of healthy foreground voxels


@dataclass(eq=False)
class _Seen:
    """What the healthy maps of one name looked like."""

    scores: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)


class _Sums:
    """Sums of images and residuals of aligned scans, from which one can be left out again; empty where they are not.

    Args:
        model: what the residuals are of.
        options: of `residual_z`.
        image: statistics of images that are known already; None where these scans are to give them.
        prior: towards which residuals are shrunk.
    """

    def __init__(
        self, model: Model, options: residual_z.Settings, *, image: Normal | None, prior: Normal | None
    ) -> None:
        shape = model.preparation.settings.shape
        self._spacing = model.preparation.grid.spacing
        self._options = options
        self._known, self._prior = image, prior
        self._images, self._residuals = Moments.empty(shape), Moments.empty(shape)

    def add_image(self, prepared: Prepared) -> None:
        self._images.add(prepared.image[0], prepared.mask[0])

    def add_residual(self, inference: Inference) -> None:
        """After all images: the residual looks at their statistics."""
        self._residuals.add(self._residual(inference), inference.prepared.mask[0])

    def image(self, *, without: Inference | None = None) -> Normal | None:
        """Statistics of the images, `without` one of the scans that were added."""
        if self._known is not None or not self._images.n:
            return self._known
        images = self._images
        if without is not None:
            images = images.without(without.prepared.image[0], without.prepared.mask[0])
        return images.normal(spacing=self._spacing)

    def residual(self, *, without: Inference | None = None) -> Normal | None:
        """Statistics of the residuals, `without` one of the scans that were added."""
        if not self._residuals.n:
            return None
        residuals = self._residuals
        if without is not None:
            residuals = residuals.without(self._residual(without), without.prepared.mask[0])
        return residuals.normal(spacing=self._spacing, prior=self._prior)

    def _residual(self, inference: Inference) -> NDArray[np.float32]:
        return residual_z.residual(inference, self._image_of_all, self._options)

    @cached_property
    def _image_of_all(self) -> Normal:
        known = self.image()
        assert known is not None
        return known


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
        scans: called up to three times; gives the same prepared scans each time.
        names: the maps to score; those that cannot be made without alignment are left out where scans are not aligned.
        calibrated: whether training had not seen these scans.
        detect: options of the maps, draws, and what makes a score; the model's settings if None.
        on_scan: called after each scan of each of the two passes through the network.

    Raises:
        SettingsError: `residual_z.winsor` is another one than the model was made with.
    """
    detect = detect or model.settings.detect
    aligned = model.preparation.aligned
    before = reference_of(model) if NAME in model.sets else empty_reference(model.hash, model.preparation.hash)
    prior, options = None, _residual_options(detect)
    if calibrated:  # a second calibration is not shrunk towards the first
        prior = before.prior if before.calibrated else before.residual
        check_options(model, detect)
    sums = _Sums(model, options, image=before.image, prior=prior)
    if aligned and not calibrated:
        for prepared in scans():
            sums.add_image(prepared)
    hashes: list[str] = []
    for prepared in scans():
        if aligned:
            sums.add_residual(infer(model, prepared))
        hashes.append(prepared.source_hash)
        on_scan()

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
        rest = replace(bare, image=sums.image(without=inference), residual=sums.residual(without=inference))
        for name in names:
            _note(seen[name], name, inference, rest, options=detect.options.get(name, {}))
        on_scan()
    scales = {n: float(np.sqrt(np.mean(seen[n].squares))) or 1.0 for n in names if n == "residual_z"}
    return replace(
        bare,
        image=sums.image(),
        residual=sums.residual(),
        prior=prior,
        scales=scales,
        scores={n: np.sort(np.array(s.scores, np.float32) / scales.get(n, 1.0)) for n, s in seen.items()},
        limits={n: float(np.mean(s.limits)) / scales.get(n, 1.0) for n, s in seen.items()},
        options={n: _all_options(n, detect) for n in names},
    )


def _residual_options(detect: DetectSettings) -> residual_z.Settings:
    configured = configure("maps", "residual_z", detect.options.get("residual_z", {}))[1]
    return cast("residual_z.Settings", configured)


def check_options(model: Model, detect: DetectSettings) -> None:
    """Check that a model can be calibrated with these options of maps.

    Raises:
        SettingsError: an unknown map or option, or another `residual_z.winsor` than the model was made with: the
            residuals of its training scans, towards which others are shrunk, were made with that one.
    """
    for name, options in detect.options.items():
        configure("maps", name, options)
    asked, trained = _residual_options(detect), _residual_options(model.settings.detect)
    if asked.winsor != trained.winsor:
        message = f"residual_z.winsor is {trained.winsor:g} in this model, not {asked.winsor:g}"
        hint = f"train a model with --set detect.options.residual_z.winsor={asked.winsor:g}"
        raise SettingsError(message, hint=hint)


def _all_options(name: str, detect: DetectSettings) -> dict[str, Any]:
    """Options of a map with its defaults written out: a later version may have others."""
    return configure("maps", name, detect.options.get(name, {}))[1].model_dump(mode="json")


def _note(seen: _Seen, name: str, inference: Inference, rest: Reference, *, options: Mapping[str, Any]) -> None:
    found = anomaly_map(name, inference, rest, options=options)
    mask = inference.prepared.mask[0]
    inside = found.values[mask]
    seen.scores.append(found.score(mask, top=rest.top))
    seen.squares.append(float(np.mean(inside**2)))
    seen.limits.append(float(np.quantile(inside, LIMIT)))


def uncalibrated(model: Model, scans: Callable[[], Iterator[Prepared]], *, on_scan: Callable[[], None]) -> Model:
    """A model with its first Reference, from scans that training has seen."""
    names = plugins.usable("maps")
    return with_reference(model, make_reference(model, scans, names=names, calibrated=False, on_scan=on_scan))


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
        known, asked = (
            configure("maps", name, options.get(name, {}))[1].model_dump(mode="json")
            for options in (reference.options, wanted.options)
        )
        for key, mine in known.items():
            if mine != (theirs := asked[key]):
                message = f"the Reference was made with detect.options.{name}.{key}={mine}, not {theirs}"
                text = str(theirs).replace(" ", "")  # as a shell takes it in one piece
                raise SettingsError(message, hint=f"{again}detect.options.{name}.{key}={text}`")


def _unknown(name: str, reference: Reference) -> SettingsError:
    if getattr(plugins.load("maps", name), "NEEDS_ALIGNMENT", False):
        message = f"the map {name!r} compares voxel by voxel, and this model's scans are not aligned"
        return SettingsError(message, hint=suggest(name, tuple(reference.limits)))
    hint = "run `medvae calibrate` with this model again"
    return SettingsError(f"the Reference knows no map {name!r}; it was made without it", hint=hint)
