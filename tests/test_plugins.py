"""Plug-ins: found by file name without an import, named wrongly, offered by other packages."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

from medvae import plugins
from medvae.errors import SettingsError
from medvae.settings import Empty, Frozen, configure

KINDS = plugins.KINDS


class Other(Frozen):
    """Settings of a plug-in of another package."""

    size: int = 3


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Another package that offers a map called `theirs`."""
    module = ModuleType("theirs")
    module.Settings = Other  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "theirs", module)
    point = EntryPoint("theirs", "theirs", "medvae.maps")

    def entry_points(*, group: str, name: str = "theirs") -> tuple[EntryPoint, ...]:
        return (point,) if (group, name) == ("medvae.maps", "theirs") else ()

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_is_found_described_and_loaded(kind: plugins.Kind) -> None:
    assert list(plugins.names(kind)) == sorted(plugins.names(kind))
    for name in plugins.names(kind):
        assert not name.startswith("_")
        assert plugins.summary(kind, name)
        module, made = configure(kind, name, {})
        assert module.__name__ == f"medvae.{plugins._FOLDERS[kind]}.{name}"
        assert isinstance(made, Frozen)


def test_a_wrong_name_gets_the_nearest_one() -> None:
    for call in (plugins.check, plugins.load):
        with pytest.raises(SettingsError, match="there is no 'residul' among the maps") as caught:
            call("maps", "residul")
        assert (caught.value.hint or "").startswith("did you mean 'residual'? choose one of: ")
    assert plugins.check("maps", "residual") == "residual"
    assert plugins.suggest("qqq", ("a", "b")) == "choose one of: a, b"


def test_names_that_are_no_plugin_are_never_imported() -> None:
    for name in ("_shared", "__init__", "../settings", "os", ""):
        with pytest.raises(SettingsError):
            plugins.load("maps", name)


def test_options_are_checked() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'x' in maps\.kl"):
        configure("maps", "kl", {"x": 1})


def test_other_packages_add_theirs(other: ModuleType) -> None:
    assert "theirs" in plugins.names("maps")
    assert "theirs" not in plugins.names("samplers")
    assert plugins.summary("maps", "theirs") == ""
    assert plugins.load("maps", "theirs") is other
    module, made = configure("maps", "theirs", {"size": 4})
    assert (module, made) == (other, Other(size=4))
    del other.Settings  # type: ignore[attr-defined]
    assert configure("maps", "theirs", {}) == (other, Empty())


def test_presets_are_the_files_in_configs() -> None:
    assert plugins.presets() == tuple(sorted(plugins.presets()))
    assert "demo" in plugins.presets()


def test_the_first_line_is_read_from_the_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("imported")

    monkeypatch.setattr(plugins, "import_module", never)
    assert all(plugins.summary(kind, name) for kind in KINDS for name in plugins.names(kind))
