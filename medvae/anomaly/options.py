"""Which maps and options a model can have, and which ones its Reference was computed with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvae.anomaly.anomaly_map import unknown_map
from medvae.anomaly.configured import configured, needs_alignment, needs_detector, with_defaults
from medvae.anomaly.reference import NAME, reference_of
from medvae.detector.network import USUAL_STEPS
from medvae.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from medvae.anomaly.base_map import Arrays, BaseMap
    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.model import Model
    from medvae.settings import DetectSettings, Settings


def check_maps(settings: Settings) -> None:
    """Check before training that the model can have the maps that its settings name.

    Raises:
        SettingsError: an unknown map or option, or a map that needs aligned scans or a detector where there are
            none.
    """
    detect = settings.detect
    configured((*detect.maps, *detect.options), detect.options)
    without = {name for name in detect.maps if needs_detector(name)}
    if without and not settings.detector.steps:
        rest = [name for name in detect.maps if name not in without] or ["residual", "intensity"]
        hint = f"set detect.maps=[{','.join(rest)}], or set detector.steps={USUAL_STEPS}"
        raise SettingsError(f"the map {min(without)!r} needs a detector, and detector.steps is 0", hint=hint)
    if settings.prepare.align != "none":
        return
    by_place = {name for name in detect.maps if needs_alignment(name)}
    if by_place:
        rest = [name for name in detect.maps if name not in by_place] or ["residual", "intensity"]
        message = f"the map {min(by_place)!r} compares voxel by voxel, and prepare.align is none"
        raise SettingsError(message, hint=f"set detect.maps=[{','.join(rest)}], or set prepare.align=mni152 for brains")


def check_options(model: Model, detect: DetectSettings, *, names: Iterable[str]) -> None:
    """Check that a model can be calibrated with these options of maps.

    Args:
        model: already trained.
        detect: options of the maps.
        names: of the maps that are to be calibrated.

    Raises:
        SettingsError: an unknown map or option, or another value of one of a map's `FIXED_OPTIONS`, with which the
            statistics of the training scans were computed.
    """
    for name, options in detect.options.items():
        if options != model.settings.detect.options.get(name):  # the model's own may be of a package that is missing
            with_defaults(name, detect.options)
    trained = _trained_with(model)
    for name, method in configured(names, detect.options).items():
        asked = with_defaults(name, detect.options)
        for key in method.FIXED_OPTIONS:
            if name in trained and trained[name][key] != asked[key]:
                message = f"{name}.{key} is {_text(trained[name][key])} in this model, not {_text(asked[key])}"
                hint = f"train a model and set detect.options.{name}.{key}={_text(asked[key])}"
                raise SettingsError(message, hint=hint)


def kept_training(model: Model) -> Mapping[str, Arrays]:
    """What `fit` gave for the training scans of a model, by map name; nothing while it is being trained."""
    return reference_of(model).training if NAME in model.sets else {}


def training_statistics(
    kept: Mapping[str, Arrays], methods: Mapping[str, BaseMap], *, detect: DetectSettings, before: DetectSettings
) -> dict[str, Arrays]:
    """Those of them that these maps go on from.

    A map that counts how rare the values of others are (`USES_LEFT_OUT`) does not where an option of one of these, or
    the number of draws, is another one than in training: their values were others.

    Args:
        kept: what `kept_training` gives.
        methods: maps with the options of `detect`, by name.
        detect: of this calibration.
        before: of the training.
    """
    changed = {name for name in methods if with_defaults(name, detect.options) != with_defaults(name, before.options)}
    return {
        name: kept[name]
        for name, method in methods.items()
        if name in kept and not (method.USES_LEFT_OUT and (detect.draws != before.draws or changed & set(method.USES)))
    }


def _trained_with(model: Model) -> dict[str, Mapping[str, Any]]:
    """The options of the maps that have statistics of the training scans."""
    if NAME not in model.sets:
        return {}
    reference = reference_of(model)
    return {name: one.options for name, one in reference.maps.items() if name in reference.training}


def detect_settings(model: Model) -> DetectSettings:
    """The model's settings of detect, with the options, draws and `top` that its Reference was computed with.

    Raises:
        ModelError: the model has no Reference, or that of another one.
    """
    reference = reference_of(model)
    options = {name: dict(one.options) for name, one in reference.maps.items()}
    computed_with = {"options": options, "top": reference.top, "draws": reference.draws}
    return model.settings.detect.model_copy(update=computed_with)


def require_known(reference: Reference, wanted: DetectSettings, *, aligned: bool) -> None:
    """Check that healthy scores were computed the way that maps and scores are wanted.

    Args:
        reference: of the model.
        wanted: maps and options.
        aligned: whether the model's scans are aligned.

    Raises:
        SettingsError: a map that the Reference does not know, or other options or another `top` than it has.
    """
    if not wanted.maps:
        raise SettingsError("no map is asked for", hint="set detect.maps=[residual_z]")
    for key in ("top", "draws"):
        _require_same(f"detect.{key}", getattr(reference, key), getattr(wanted, key))
    for name in reversed(configured(wanted.maps, wanted.options)):
        if name not in reference.maps:
            raise unknown_map(name, aligned=aligned)
        asked = with_defaults(name, wanted.options)
        for key, mine in with_defaults(name, {name: reference.maps[name].options}).items():
            _require_same(f"detect.options.{name}.{key}", mine, asked[key])


def _require_same(key: str, mine: Any, theirs: Any) -> None:
    if mine != theirs:
        message = f"the Reference was computed with {key}={_text(mine)}, not {_text(theirs)}"
        raise SettingsError(message, hint=f"calibrate the model again and set {key}={_text(theirs)}")


def _text(value: Any) -> str:
    """A value as a shell takes it in one piece."""
    return f"{value:g}" if isinstance(value, float) else str(value).replace(" ", "")
