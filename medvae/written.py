"""Settings as a person writes them: presets, YAML files and key=value texts, as trees of plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from medvae.errors import SettingsError
from medvae.plugins import preset, presets, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def read_yaml(config: str) -> dict[str, Any]:
    """The settings of a preset or a YAML file, over those of the preset that the file builds on.

    Raises:
        SettingsError: there is none of that name, or it cannot be read as settings.
    """
    if config in presets():
        text = preset(config)
    elif os.path.isfile(config):  # False for what can be no path, too
        try:
            text = Path(config).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"the settings cannot be read: {error}", path=config) from None
    else:
        raise SettingsError(f"there is no preset or file {config!r}", hint=suggest(config, presets()))
    try:
        tree = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise SettingsError(f"not valid YAML: {' '.join(str(error).split())}", path=config) from None
    if not isinstance(tree, dict):
        raise SettingsError(f"settings are key: value pairs, got {type(tree).__name__}", path=config)
    base = tree.pop("base", None)
    return tree if base is None else over(_base(base, config), tree)


def _base(name: Any, config: str) -> dict[str, Any]:
    """The preset that a file builds on."""
    if name not in presets():
        raise SettingsError(f"base: {name!r} is not a preset", path=config, hint=suggest(str(name), presets()))
    return read_yaml(name)


def changes(overrides: Iterable[str] | Mapping[str, Any]) -> list[dict[str, Any]]:
    """`section.key=value` texts, one or several, or values by `section.key`, as a tree each.

    Raises:
        SettingsError: a text without key or value.
    """
    if isinstance(overrides, Mapping):
        return [_nested(key, value) for key, value in overrides.items()]
    return [_parse_override(text) for text in ([overrides] if isinstance(overrides, str) else overrides)]


def keys(overrides: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """The names of the settings that are changed, as they were written."""
    if isinstance(overrides, Mapping):
        return list(overrides)
    return [text.partition("=")[0].strip() for text in ([overrides] if isinstance(overrides, str) else overrides)]


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"cannot read the setting {text!r}", hint="write section.key=value")
    try:
        return _nested(key.strip(), yaml.safe_load(value))
    except (yaml.YAMLError, ValueError):
        return _nested(key.strip(), value)


def _nested(key: str, value: Any) -> dict[str, Any]:
    first, *others = key.split(".")
    return {first: _nested(".".join(others), value) if others else value}


def over(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """A user's settings over those of a preset or a record: a length replaces a time budget, and a recorded plan."""
    train, detector = (high[one] if isinstance(high.get(one), dict) else {} for one in ("train", "detector"))
    timed = train.get("minutes") is not None
    low = merge(low, {"train": {"minutes": None, "plan": ()}}) if "steps" in train or timed else low
    low = merge(low, {"detector": {"plan": ()}}) if "steps" in detector or timed else low
    return merge(low, high)


def merge(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """The values of both trees; where both have one, that of `high`."""
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
