"""Maps by name with their options, those that they use before them; and which maps a model can have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from medvae import plugins
from medvae.anomaly.base_map import BaseMap
from medvae.errors import SettingsError
from medvae.settings import configure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from medvae.checkpoint.model import Model

log = logging.getLogger(__name__)


def configured(names: Iterable[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, BaseMap]:
    """The maps of these names and all that they use, in an order in which a used map comes first.

    Args:
        names: of the maps.
        options: by map name; a map without any has its defaults.

    Raises:
        SettingsError: an unknown map or option, one that cannot be imported, or maps that use each other in a circle.
    """
    found: dict[str, BaseMap] = {}
    for name in names:
        _add(name, options, found, path=())
    return found


def _add(
    name: str, options: Mapping[str, Mapping[str, Any]], found: dict[str, BaseMap], *, path: tuple[str, ...]
) -> None:
    if name in found:
        return
    if name in path:
        circle = " -> ".join((*path[path.index(name) :], name))
        raise SettingsError(f"maps use each other in a circle: {circle}", hint="correct USES of one of them")
    method = _configure(name, options.get(name, {}))
    for used in method.USES:
        _add(used, options, found, path=(*path, name))
    found[name] = method


def _configure(name: str, options: Mapping[str, Any]) -> BaseMap:
    module, settings = configure("maps", name, options)
    kind = getattr(module, "Map", None)
    if not (isinstance(kind, type) and issubclass(kind, BaseMap)):
        message = f"the map {name!r} has no class Map derived from medvae.anomaly.base_map.BaseMap"
        raise SettingsError(message, hint="update or uninstall the package that provides it")
    return kind(settings)


def with_defaults(name: str, options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The options of a map as plain data, with its defaults written out: a later version may have others.

    Raises:
        SettingsError: an unknown map or option.
    """
    tree: dict[str, Any] = configure("maps", name, options.get(name, {}))[1].model_dump(mode="json")
    return tree


def needs_alignment(name: str) -> bool:
    """Whether a map, or one that it uses, compares voxel by voxel across scans.

    Raises:
        SettingsError: an unknown map, or one that cannot be imported.
    """
    return any(method.NEEDS_ALIGNMENT for method in configured([name], {}).values())


def needs_detector(name: str) -> bool:
    """Whether a map, or one that it uses, needs a model with a detector.

    Raises:
        SettingsError: an unknown map, or one that cannot be imported.
    """
    return any(method.NEEDS_DETECTOR for method in configured([name], {}).values())


def is_costly(name: str) -> bool:
    """Whether healthy statistics of a map, or of one that it uses, are computed only where `detect.maps` names it.

    Raises:
        SettingsError: an unknown map, or one that cannot be imported.
    """
    return any(method.COSTLY for method in configured([name], {}).values())


def usable(model: Model, named: Collection[str] = ()) -> tuple[str, ...]:
    """The names of all maps that a model can have, costly ones only if they are among those named (`detect.maps`).

    One that cannot be used is logged as a warning and left out.
    """
    aligned, has_detector = model.preparation.aligned, model.detector is not None
    names = []
    for name in plugins.usable("maps"):
        try:
            possible = (aligned or not needs_alignment(name)) and (has_detector or not needs_detector(name))
            wanted = name in named or not is_costly(name)
        except SettingsError as problem:
            log.warning("%s; it is left out", problem)
            continue
        if possible and wanted:
            names.append(name)
    return tuple(names)
