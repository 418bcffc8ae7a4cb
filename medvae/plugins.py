"""A folder is a registry: a map, sampler or model is found by its file's name, and listed without importing it.

Outside packages add more through entry points of the group ``medvae.<kind>`` (e.g. ``medvae.maps``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from medvae.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable
    from types import ModuleType

    from pydantic import BaseModel

Kind = Literal["maps", "samplers", "networks", "formats"]
_FOLDERS: dict[str, str] = {
    "maps": "anomaly.maps",
    "samplers": "synthesis.samplers",
    "networks": "vae.networks",
    "formats": "io.formats",
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
    if name not in names(kind):
        raise SettingsError(f"there is no {name!r} among the {kind}", hint=suggest(name, names(kind)))
    return name


def load(kind: Kind, name: str) -> ModuleType:
    """Import the plug-in `name`.

    Raises:
        SettingsError: there is none of that name.
    """
    from importlib.metadata import entry_points

    check(kind, name)
    for point in entry_points(group=f"medvae.{kind}", name=name):
        module: ModuleType = point.load()
        return module
    return import_module(f"medvae.{_FOLDERS[kind]}.{name}")


def configure(kind: Kind, name: str, options: Mapping[str, Any]) -> tuple[ModuleType, BaseModel]:
    """The plug-in and its `Settings` made from `options`; a plug-in without `Settings` takes no options."""
    from medvae.settings import Empty, validate

    module = load(kind, name)
    return module, validate(getattr(module, "Settings", Empty), dict(options), where=f"{kind}.{name}")


def suggest(wrong: str, choices: tuple[str, ...], *, section: str = "") -> str:
    """A hint that lists the choices, the nearest one first; that one with `section` before it."""
    from difflib import get_close_matches

    near = get_close_matches(wrong, choices, n=1, cutoff=0.5)
    lead = f"did you mean '{section}{near[0]}'? " if near else ""
    return f"{lead}choices: {', '.join(choices)}"


def _folder(name: str) -> Traversable:
    from importlib.resources import files  # here, because a plain --help should not pay for it

    if name == "configs":  # a folder of its own in a checkout
        return files("medvae.configs")
    folder = files("medvae")  # not files("medvae.anomaly.maps"), which would import it, and numpy with it
    for part in _FOLDERS[name].split("."):
        folder = folder / part
    return folder
