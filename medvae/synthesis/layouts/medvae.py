"""images/, labels/, labels.csv for medvae train, dataset.json for MONAI; the default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvae.cohort.find import find
from medvae.run.work import JsonFile
from medvae.synthesis.base_layout import BaseLayout, Places, RealScan, RealSet, relative
from medvae.synthesis.layouts import _decathlon
from medvae.synthesis.layouts._lists import labels_csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.run.work import File
    from medvae.scan import ScanRef
    from medvae.synthesis.rows import Row


class Layout(BaseLayout):
    """Lists of medvae and MONAI beside the images; real scans are whatever `medvae.find` finds."""

    def places(self, one: str) -> Places:
        """A folder for images with their sidecars, one for label maps."""
        return Places(f"images/{one}.nii.gz", f"labels/{one}.nii.gz", f"images/{one}.json")

    def lists(self, rows: Sequence[Row], out: Path) -> tuple[File, ...]:
        """`labels.csv` and `dataset.json`."""
        real = () if self.real is None else self.real.scans
        items = [_real_item(scan, out, classes=_decathlon.classes_of(self.real)) for scan in real]
        tree = _decathlon.datalist(self, rows, items)
        return labels_csv(self, rows, [_real_cells(scan, out) for scan in real]), JsonFile("dataset.json", tree)

    @classmethod
    def read(cls, folder: Path) -> RealSet:
        """All scans of a folder or list."""
        refs = [ref for ref in find(folder) if ref.format != "dicom"]
        classes = sorted({ref.label for ref in refs if ref.label is not None})
        scans = tuple(RealScan(ref.id, ref.path.absolute(), _said(ref)) for ref in refs)
        return RealSet(folder.absolute(), {"classes": classes} if classes else {}, scans)

    def check(self) -> None:
        """Classes are numbers in `dataset.json`."""
        super().check()
        _decathlon.check_classes(self)


def _said(ref: ScanRef) -> dict[str, Any]:
    label_map = None if ref.label_map is None else ref.label_map.absolute()
    return {**ref.conditions, "subject": ref.subject, "label": ref.label, "label_map": label_map}


def _real_cells(scan: RealScan, out: Path) -> dict[str, Any]:
    label_map = scan.item["label_map"]
    where = {"scan": relative(scan.image, out), "label_map": label_map and relative(label_map, out)}
    return {**scan.item, **where, "synthetic": "no"}


def _real_item(scan: RealScan, out: Path, *, classes: Sequence[str]) -> dict[str, Any]:
    said = {name: value for name, value in scan.item.items() if name not in ("label", "label_map")}
    item = {**said, "image": relative(scan.image, out), "synthetic": False}
    label, label_map = scan.item["label"], scan.item["label_map"]
    if label_map is not None:
        item["label"] = relative(label_map, out)
    if label is not None:
        item["class" if label_map is not None else "label"] = classes.index(label)
    return item
