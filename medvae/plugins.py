"""A folder is a registry: a map, sampler, network or any other plug-in is found by its file's name, unimported.

Outside packages add more through entry points of the group ``medvae.<kind>`` (e.g. ``medvae.maps``).
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Literal, get_args

from medvae.errors import SettingsError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from types import ModuleType

Kind = Literal["maps", "samplers", "networks", "likelihoods", "formats", "layouts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_FOLDERS: dict[str, str] = {
    "maps": "anomaly.maps",
    "samplers": "synthesis.samplers",
    "networks": "vae.networks",
    "likelihoods": "vae.likelihoods",
    "formats": "io.formats",
    "layouts": "synthesis.layouts",
}


def names(kind: Kind) -> tuple[str, ...]:
    """Public names of all plug-ins of a kind, sorted; nothing is imported."""
    from importlib.metadata import entry_points  # here, because a plain --help should not pay for it

    ours = {
        entry.name.removesuffix(".py")
        for entry in _folder(kind).iterdir()
        if entry.name.endswith(".py") and not entry.name.startswith("_")
    }
    return tuple(sorted(ours | {point.name for point in entry_points(group=f"medvae.{kind}")}))


def presets() -> tuple[str, ...]:
    """Names of the presets that are installed."""
    found = _folder("configs").iterdir()
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in found if entry.name.endswith(".yaml")))


def preset(name: str) -> str:
    """The YAML text of a preset; its first line is a comment that says what it is for."""
    return (_folder("configs") / f"{name}.yaml").read_text("utf-8")


def summary(kind: Kind | Literal["presets"], name: str) -> str:
    """The first line of a plug-in's docstring or of a preset, read from its text; empty for those of other packages."""
    import ast

    if kind == "presets":
        return preset(name).partition("\n")[0].removeprefix("#").strip()
    source = _folder(kind) / f"{name}.py"
    if not source.is_file():
        return ""
    docstring = ast.get_docstring(ast.parse(source.read_text("utf-8"))) or ""
    return docstring.partition("\n")[0]


def check(kind: Kind, name: str) -> str:
    """The name of a plug-in, unchanged; nothing is imported.

    Raises:
        SettingsError: there is none of that name; the hint has the choices and the nearest one.
    """
    if not _is_ours(kind, name) and name not in names(kind):
        raise SettingsError(f"there is no {name!r} among the {kind}", hint=suggest(name, names(kind)))
    return name


def load(kind: Kind, name: str) -> ModuleType:
    """Import the plug-in `name`.

    Raises:
        SettingsError: there is none of that name, or it cannot be imported.
    """
    from importlib.metadata import entry_points

    check(kind, name)
    try:
        if _is_ours(kind, name):  # first: the entry points of a whole environment take milliseconds to look through
            return import_module(f"medvae.{_FOLDERS[kind]}.{name}")
        (point, *_) = entry_points(group=f"medvae.{kind}", name=name)
        module: ModuleType = point.load()
        return module
    except Exception as problem:  # code of another package: it may raise anything
        text = f"{type(problem).__name__}: {' '.join(str(problem).split())}"
        message = f"{name!r}, one of the {kind}, cannot be imported ({text})"
        raise SettingsError(message, hint="repair or uninstall the package that provides it") from problem


def usable(kind: Kind) -> tuple[str, ...]:
    """The names of all plug-ins that can be imported; there is a warning for the others, and nothing else suffers."""
    found = []
    for name in names(kind):
        try:
            load(kind, name)
        except SettingsError as problem:
            logging.getLogger(__name__).warning("%s; it is left out", problem)
        else:
            found.append(name)
    return tuple(found)


def suggest(wrong: str, choices: tuple[str, ...], *, section: str = "") -> str:
    """A hint that lists the choices, the nearest one first; that one with `section` before it."""
    from difflib import get_close_matches

    near = get_close_matches(wrong, choices, n=1, cutoff=0.5)
    lead = f"did you mean '{section}{near[0]}'? " if near else ""
    return f"{lead}choose one of: {', '.join(choices)}"


def _is_ours(kind: Kind, name: str) -> bool:
    return not name.startswith("_") and (_folder(kind) / f"{name}.py").is_file()


def _folder(name: str) -> Traversable:
    from importlib.resources import files  # here, because a plain --help should not pay for it

    if name == "configs":  # a folder of its own in a checkout
        return files("medvae.configs")
    folder = files("medvae")  # not files("medvae.anomaly.maps"), which would import it, and numpy with it
    for part in _FOLDERS[name].split("."):
        folder = folder / part
    return folder
