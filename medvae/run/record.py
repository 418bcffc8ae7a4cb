"""What a run is, as `run.json` holds it; whether a folder holds the same run; what a full disk is called."""

from __future__ import annotations

import json
import platform
import time
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from medvae import __version__
from medvae.errors import InputError, OutputError, is_disk_full
from medvae.io.files import final_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

RESEARCH_USE = "Research use only. Not a medical device; not for diagnosis."
EMPTY = "choose an empty folder"
TIMES = ("started", "seconds")  # entries of `run.json` that differ between two runs of the same thing
_PACKAGES = ("torch", "monai", "numpy", "scipy", "nibabel", "pydicom", "SimpleITK", "scikit-learn")


def new_record(command: str, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a run that begins: `run.json` without its end."""
    record = {"command": command, "medvae": __version__, "notice": RESEARCH_USE, "identity": identity}
    return record | {"versions": _versions(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def refuse_other_run(folder: Path, record: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Refuse a folder whose record is not that of a run, or of another command, other settings or another model.

    Args:
        folder: holds a `run.json`.
        record: of the run that begins.
        overwrite: the same command is enough.

    Raises:
        OutputError: it is refused.
    """
    try:
        there = read_record(folder)
    except InputError:  # perhaps it is the user's own file
        message = "the output folder holds other files: its run.json cannot be read as the record of a run"
        raise OutputError(message, path=folder, hint=EMPTY) from None
    mine = json.loads(json.dumps(record))  # as it is read back: tuples are lists
    if there["command"] != mine["command"]:
        message = f"the folder holds a run of `medvae {there['command']}`"
        raise OutputError(message, path=folder, hint="choose another folder")
    if not overwrite and there["identity"] != mine["identity"]:
        hint = "choose another folder, or pass overwrite=True to begin anew"
        raise OutputError(f"the folder holds another run: {_differences(there, mine)}", path=folder, hint=hint)


_DIFFERENCES = {"model": "another model", "reference": "the model has been calibrated since"}
_NAMED = 3  # differences that a message names


def _differences(there: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """In words, what two records differ in."""
    before, now = _flat(there["identity"]), _flat(mine["identity"])
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    keys = [key for key in keys if not any(key.startswith(f"{above}.") for above in keys)]  # {} has become leaves
    words = [_DIFFERENCES.get(key, f"{key.removeprefix('settings.')} differs") for key in keys]
    if _DIFFERENCES["model"] in words:
        words = [_DIFFERENCES["model"]]  # all else follows from it
    return ", ".join(words[:_NAMED]) + (f" and {len(words) - _NAMED} more" if len(words) > _NAMED else "")


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """The leaves of a tree by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{before}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return flat


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the run that a folder holds.

    Raises:
        InputError: it holds none.
    """
    try:
        record = json.loads((folder / "run.json").read_text("utf-8"))
        is_run = isinstance(record["command"], str) and isinstance(record["identity"], dict)
    except (OSError, ValueError, LookupError, TypeError):
        is_run = False
    if not is_run:
        raise InputError("not an output folder of medvae", path=folder, hint="pass the output folder of a run")
    found: dict[str, Any] = record
    return found


def is_model(folder: Path) -> bool:
    """Whether a folder is a model folder, or will be one when its training has ended."""
    if (folder / "model.json").is_file() and any(folder.glob("*.safetensors")):
        return True
    try:
        return bool(json.loads((folder / "run.json").read_text("utf-8")).get("command") == "train")
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into an OutputError that names the file."""
    try:
        yield
    except Exception as problem:
        if is_disk_full(problem):
            hint = "free some space and run the same command again: it goes on where it stopped"
            raise OutputError("the disk is full", path=_named(problem, path), hint=hint) from problem
        if isinstance(problem, OSError):
            message = f"cannot write: {problem.strerror or problem}"
            hint = "check that the folder exists and that you may write there, or choose another one"
            raise OutputError(message, path=_named(problem, path), hint=hint) from problem
        raise


def _named(problem: Exception, path: Path) -> str:
    """The file that could not be written, by the name it would have got."""
    name = getattr(problem, "filename", None)
    return final_name(str(name)) if name else str(path)


def hash_of(value: Any) -> str:
    """The first 16 hex digits of the SHA-256 of a value's JSON."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
