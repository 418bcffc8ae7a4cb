"""What an earlier training has left in a model folder, and whether this one may go on with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from medvae.checkpoint.folder import load
from medvae.errors import OutputError
from medvae.io.files import write_json
from medvae.training.state import has_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from medvae.run.outcomes import Outcome
    from medvae.scan import ScanRef
    from medvae.settings import Settings

_SCANS = "scans.json"  # of the training, by id: a fingerprint, and whether the scan could be used
_PICTURES = ("curves.png", "reconstructions.png")
_NAMED = 3  # scans that a message names
# settings of train, and of detector, that may differ when a training goes on
_LENGTH = {"minutes", "steps", "plan", "keep_state", "folds"}
_DETECTOR_LENGTH = {"steps", "share", "plan"}


def identity(settings: Settings) -> dict[str, Any]:
    """The settings that make two trainings the same one: all but how long it takes."""
    tree = settings.model_dump(mode="json")
    for section, free in (("train", _LENGTH), ("detector", _DETECTOR_LENGTH)):
        tree[section] = {key: value for key, value in tree[section].items() if key not in free}
    return tree


def length(settings: Settings) -> dict[str, Any]:
    """How long a training is to be, as its record keeps it."""
    tree, detector = settings.train.model_dump(mode="json"), settings.detector
    steps, detector_steps = (tree["steps"], detector.steps) if tree["minutes"] is None else (None, None)
    share = detector.share if tree["minutes"] is not None and detector.steps else None
    return {
        "minutes": tree["minutes"],
        "steps": steps,
        "plan": tree["plan"],
        "detector_steps": detector_steps,
        "detector_share": share,
        **({"detector_plan": [list(change) for change in detector.plan]} if detector.plan else {}),
        **({"folds": tree["folds"]} if tree["folds"] else {}),
    }


def is_finished(out: Path, settings: Settings, refs: Sequence[ScanRef], *, resume: bool) -> bool:
    """Whether the folder holds the finished model of a training of this length, on scans of these classes.

    Raises:
        OutputError: a training that was interrupted, or a finished model of another length or with other classes, and
            `resume` is not given; or there is nothing to continue from.
    """
    model = (out / "model.json").is_file()
    record = _read(out / "run.json") or {}
    whole = model and _is_whole(out, record)
    same = whole and record.get("length") == length(settings)
    others = _of_other_classes(out, refs) if same else []
    if same and not others:
        return True
    if not resume and (model or has_state(out)):
        what = "an interrupted training"
        if others:
            what = f"a finished model, trained when scans had other classes ({_names(others)})"
        elif whole:
            what = "a finished model, trained for another number of steps, minutes or folds"
        hint = "pass resume=True to go on with it, or overwrite=True to begin anew"
        raise OutputError(f"the folder holds {what}", path=out, hint=hint)
    if model and not has_state(out):
        hint = "pass overwrite=True to train anew, and set train.keep_state=true to be able to go on"
        raise OutputError("the state of its training was not kept, so it cannot go on", path=out, hint=hint)
    return False


def check_scans(out: Path, refs: Sequence[ScanRef]) -> None:
    """Check that the scans are those of the training that the folder holds, if it holds one.

    Raises:
        OutputError: some were added, removed or changed since.
    """
    before = {name: one.get("input") for name, one in _begun(out).items()}
    if not before:
        return
    now = {ref.id: _fingerprint(ref) for ref in refs}
    changes = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys()),
        "changed": sorted(name for name in now.keys() & before.keys() if now[name] != before[name]),
    }
    text = "; ".join(f"{what}: {_names(ids)}" for what, ids in changes.items() if ids)
    if text:
        hint = "give the same scans again, or pass overwrite=True"
        message = f"the scans are not those that the training in this folder began with ({text})"
        raise OutputError(message, path=out, hint=hint)


def as_begun(out: Path, refs: Sequence[ScanRef]) -> tuple[ScanRef, ...]:
    """The scans in the order of the training that the folder holds: which of them a step draws depends on it."""
    places = {name: place for place, name in enumerate(_read(out / _SCANS) or {})}
    return tuple(sorted(refs, key=lambda ref: places.get(ref.id, len(places))))


def unused(out: Path) -> frozenset[str]:
    """The scans that could not be used when the training that the folder holds was begun: it goes on without them."""
    return frozenset(name for name, one in _begun(out).items() if one.get("usable") is False)


def check_usable(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Check that what the training in the folder learns from, if it holds one, can still be used.

    Raises:
        OutputError: some scans cannot be used any more.
    """
    used = {name for name, one in _begun(out).items() if one.get("usable")}
    gone = [one for one in outcomes if one.id in used and one.status != "ok"]
    if gone:
        names, reason = _names([one.id for one in gone]), gone[0].message
        message = f"scans that the training in this folder learns from cannot be used now ({names}): {reason}"
        hint = "pass resume=True again when they can be used, or overwrite=True to begin anew"
        raise OutputError(message, path=out, hint=hint)


def keep_scans(out: Path, outcomes: Sequence[Outcome]) -> None:
    """Write which scans the training is of, in their order, and which of them it can use."""
    write_json(out / _SCANS, {one.id: {"input": one.input, "usable": one.status == "ok"} for one in outcomes})


def _begun(out: Path) -> dict[str, dict[str, Any]]:
    """What is known of each scan that the training in the folder began with; nothing where none has begun."""
    if not (has_state(out) or (out / "model.json").is_file()):
        return {}
    tree = _read(out / _SCANS) or {}
    # a text: written by an earlier version
    return {name: one if isinstance(one, dict) else {"input": one} for name, one in tree.items()}


def _of_other_classes(out: Path, refs: Sequence[ScanRef]) -> list[str]:
    """The scans whose class is not the one that the model in the folder knows."""
    latents = load(out, device="cpu").latents
    known = dict(zip(latents.ids, latents.labels, strict=True))
    return [ref.id for ref in refs if ref.id in known and known[ref.id] != ref.label]


def _is_whole(out: Path, record: Mapping[str, Any]) -> bool:
    """Whether all that belongs to a finished model has been written, and belongs to it."""
    tree = _read(out / "model.json") or {}
    pictures = all((out / name).is_file() for name in _PICTURES)
    return pictures and record.get("model") is not None and record["model"] == tree.get("hash")


def _fingerprint(ref: ScanRef) -> str:
    """Empty for a scan that cannot be read, as in an outcome."""
    try:
        return ref.fingerprint()
    except OSError:
        return ""


def _names(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none, or a damaged one."""
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None
