"""images/, labels/, labels.csv for medvae train, dataset.json for MONAI; the default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvae.cohort.find import find
from medvae.cohort.lists import same_split
from medvae.errors import InputError
from medvae.run.record import read_record
from medvae.run.work import JsonFile
from medvae.synthesis.base_layout import BaseLayout, Places, RealScan, RealSet, relative
from medvae.synthesis.layouts import _decathlon
from medvae.synthesis.layouts._lists import labels_csv

if TYPE_CHECKING:
    from collections.abc import Sequence, Set
    from pathlib import Path

    from medvae.run.work import File
    from medvae.scan import ScanRef
    from medvae.synthesis.rows import Row

_NAMED = ("label", "label_map", "mask", "split")  # what an item of a datalist says in a way of its own


class Layout(BaseLayout):
    """Lists of medvae and MONAI beside the images; real scans are whatever `medvae.find` finds."""

    def places(self, one: str) -> Places:
        """A folder for images with their sidecars, one for label maps."""
        return Places(f"images/{one}.nii.gz", f"labels/{one}.nii.gz", f"images/{one}.json", f"masks/{one}.nii.gz")

    def lists(self, rows: Sequence[Row], out: Path) -> tuple[File, ...]:
        """`labels.csv` and `dataset.json`."""
        real = () if self.real is None else self.real.scans
        sections: dict[str, list[dict[str, Any]]] = {}
        for scan in real:
            item = _real_item(scan, out, classes=_decathlon.classes_of(self.real))
            sections.setdefault(_section(scan.item["split"]), []).append(item)
        tree = _decathlon.datalist(self, rows, sections.pop("training", []), sections)
        return labels_csv(self, rows, [_real_cells(scan, out) for scan in real]), JsonFile("dataset.json", tree)

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """Whether samples hold the data of scans that are not trained on."""
        real = () if self.real is None else self.real.scans
        others = [scan for scan in real if _section(scan.item["split"]) != "training"]
        return _decathlon.held_out_lines(self, rows, others)

    @classmethod
    def read(cls, folder: Path) -> RealSet:
        """All scans of a folder or list; what a run of `augment` wrote is synthetic, whether a list says so or not.

        Raises:
            InputError: a scan is a DICOM series; lists name files.
        """
        refs = find(folder).refs
        if series := [ref for ref in refs if ref.format == "dicom"]:
            message = (
                f"{len(series)} of {len(refs)} scans of the real set are DICOM series, which the lists cannot hold"
            )
            hint = "convert them to NIfTI, or leave merge_with= out and train on them beside labels.csv"
            raise InputError(message, path=series[0].path, hint=hint)
        classes = sorted({ref.label for ref in refs if ref.label is not None})
        folders = {place for ref in refs for place in ref.path.absolute().parents}
        runs = {place for place in folders if _is_augmented(place)}
        scans = tuple(RealScan(ref.id, ref.path.absolute(), _said(ref, runs)) for ref in refs)
        return RealSet(folder.absolute(), {"classes": classes} if classes else {}, scans)

    def check(self) -> None:
        """Classes are numbers in `dataset.json`."""
        super().check()
        _decathlon.check_classes(self)


def _is_augmented(folder: Path) -> bool:
    """Whether a run of `augment` wrote a folder."""
    try:
        return bool(read_record(folder)["command"] == "augment")
    except InputError:
        return False


def _said(ref: ScanRef, runs: Set[Path]) -> dict[str, Any]:
    """What is known of a scan; one below a folder of `runs` is synthetic."""
    files = {name: path and path.absolute() for name, path in (("label_map", ref.label_map), ("mask", ref.mask))}
    said = {**ref.conditions, "subject": ref.subject, "label": ref.label, **files, "split": ref.split}
    return said | ({"synthetic": "yes"} if runs & {*ref.path.absolute().parents} else {})


def _section(split: str | None) -> str:
    """The section of a datalist for the scans of a split: samples are in `training`, those of other splits are not."""
    wanted = split or "train"
    return next((name for name in ("training", "validation", "test") if same_split(wanted, name)), wanted)


def _real_cells(scan: RealScan, out: Path) -> dict[str, Any]:
    files = {name: scan.item[name] for name in ("label_map", "mask")}
    where = {"scan": relative(scan.image, out)} | {name: path and relative(path, out) for name, path in files.items()}
    return {**scan.item, **where, "synthetic": "no"}


def _real_item(scan: RealScan, out: Path, *, classes: Sequence[str]) -> dict[str, Any]:
    said = {name: value for name, value in scan.item.items() if name not in _NAMED}
    item = {**said, "image": relative(scan.image, out), "synthetic": False}
    label, label_map, mask = (scan.item[name] for name in ("label", "label_map", "mask"))
    if mask is not None:
        item["mask"] = relative(mask, out)
    if label_map is not None:
        item["label"] = relative(label_map, out)
    if label is not None:
        item["class" if label_map is not None else "label"] = classes.index(label)
    return item
