"""What is wrong with settings, in plain English: the setting, the value that was given, and what is allowed."""

from __future__ import annotations

from reprlib import Repr
from typing import TYPE_CHECKING, Any, get_args

from medvae.errors import SettingsError
from medvae.plugins import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel, ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_WHOLE, _NUMBER, _YES_NO = "a whole number is needed", "a number is needed", "true or false is needed"
_LIST, _NAMED = "a list is needed", "settings by name are needed"
_RULES = {  # by pydantic's type of error; its own text serves for types that are not here
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "a finite number is needed",
    "bool_type": _YES_NO,
    "bool_parsing": _YES_NO,
    "string_type": "text is needed",
    "tuple_type": _LIST,
    "list_type": _LIST,
    "dict_type": _NAMED,
    "model_type": _NAMED,
    "literal_error": "it must be {expected}",
    "value_error": "{error}",
    "too_short": "a list of {min_length} or more values is needed",
    "too_long": "no more than {max_length} values are allowed",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_SHOWN = Repr()
_SHOWN.maxstring = _SHOWN.maxother = 60


def explain(kind: type[BaseModel], error: ValidationError, *, where: str) -> SettingsError:
    """The first of pydantic's complaints as a sentence with a hint.

    Args:
        kind: of the settings.
        error: of pydantic.
        where: the settings were found, in words.
    """
    every = error.errors()
    first = every[0]
    loc = first["loc"]
    if first["type"] == "extra_forbidden":
        return SettingsError(f"unknown setting {_key(loc)!r} in {where}", hint=_meant(kind, loc))
    if first["type"] == "missing":
        return SettingsError(_missing(every, where=where), hint=_purpose(kind, loc))
    given = "empty" if first["input"] is None else _SHOWN.repr(first["input"])
    message = f"{_key(loc)} is {given} in {where}: {_rule(kind, first)}"
    return SettingsError(message, hint=_how_to_write(_key(loc), first) or _purpose(kind, loc))


def _rule(kind: type[BaseModel], one: ErrorDetails) -> str:
    """What is allowed; of a number out of range, the whole range."""
    context: dict[str, Any] = one.get("ctx", {})
    if context.keys() & _BOUNDS.keys():
        bounds = _bounds(_field(kind, one["loc"])) or context
        return f"it must be {' and '.join(f'{_BOUNDS[name]} {value:g}' for name, value in bounds.items())}"
    return _RULES.get(one["type"], one["msg"]).format_map(context)


def _bounds(field: FieldInfo | None) -> dict[str, float]:
    """The range of a number: "ge", "gt", "le" and "lt", as far as there are limits."""
    metadata = [] if field is None else field.metadata
    return {name: getattr(one, name) for name in _BOUNDS for one in metadata if hasattr(one, name)}


def _field(kind: Any, loc: Sequence[int | str]) -> FieldInfo | None:
    """The setting at a place, or the one that the place lies in, e.g. a list; None where there is none."""
    found: FieldInfo | None = None
    for part in loc:
        inner = _fields(kind).get(str(part))
        if inner is None:
            break
        found, kind = inner, inner.annotation
    return found


def _fields(kind: Any) -> dict[str, FieldInfo]:
    """The settings of a section, which may be an optional one; none for other types."""
    fields: dict[str, FieldInfo] = {}
    for one in (kind, *get_args(kind)):
        fields |= getattr(one, "model_fields", {})
    return fields


def _missing(every: Sequence[ErrorDetails], *, where: str) -> str:
    """A list that is too short, or a setting that has no default."""
    first = every[0]
    if isinstance(first["loc"][-1], str):
        return f"{_key(first['loc'])} is missing in {where}"
    inner = first["loc"][:-1]
    needed = len(first["input"]) + sum(one["type"] == "missing" and one["loc"][:-1] == inner for one in every)
    given = _SHOWN.repr(first["input"])
    return f"{_key(inner)} is {given} in {where}: {needed} values are needed"


def _how_to_write(key: str, one: ErrorDetails) -> str | None:
    rule = _RULES.get(one["type"])
    if rule == _LIST:
        return f"write a list, e.g. {key}=[{one['input']}]"
    return f"set its entries by name: {key}.NAME=VALUE" if rule == _NAMED else None


def _purpose(kind: type[BaseModel], loc: Sequence[int | str]) -> str:
    """The advice to correct a setting, with what it is for."""
    field = _field(kind, loc)
    return f"correct it: {field.description}" if field is not None and field.description else "correct it"


def _key(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc)


def _meant(kind: type[BaseModel], loc: Sequence[int | str]) -> str:
    """The setting of this name in a section, where it was written without; else what there is beside it."""
    *sections, wrong = (str(part) for part in loc)
    if not sections:
        for section, field in kind.model_fields.items():
            if wrong in _fields(field.annotation):
                return f"did you mean '{section}.{wrong}'?"
    around = _field(kind, sections)
    beside = _fields(kind if around is None else around.annotation)
    return suggest(wrong, tuple(beside), section="".join(f"{part}." for part in sections))
