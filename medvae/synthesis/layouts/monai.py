"""Medical Segmentation Decathlon: imagesTr/, labelsTr/ and the datalist dataset.json, as MONAI reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medvae.errors import InputError
from medvae.run.work import JsonFile
from medvae.synthesis.base_layout import BaseLayout, Places, RealScan, RealSet, read_json
from medvae.synthesis.layouts import _decathlon
from medvae.synthesis.layouts._lists import labels_csv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from medvae.run.work import File
    from medvae.synthesis.rows import Row

_SECTIONS = ("validation", "test")


class Layout(BaseLayout):
    """One datalist; validation and test scans of the real set stay what they are."""

    def places(self, one: str) -> Places:
        """Sidecars have a folder of their own."""
        return Places(f"imagesTr/{one}.nii.gz", f"labelsTr/{one}.nii.gz", f"sidecars/{one}.json", f"masks/{one}.nii.gz")

    def lists(self, rows: Sequence[Row], out: Path) -> tuple[File, ...]:
        """`labels.csv` and `dataset.json`."""
        samples = labels_csv(self, rows)
        if self.real is None:
            return samples, JsonFile("dataset.json", _decathlon.datalist(self, rows, ()))
        folder = self.real.folder
        items = [_decathlon.moved(scan.item, folder, out) for scan in self.real.scans]
        others = {name: [_decathlon.moved(one, folder, out) for one in held] for name, held in self._held_out.items()}
        return samples, JsonFile("dataset.json", _decathlon.datalist(self, rows, items, others))

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """Whether samples hold the data of scans that are not trained on."""
        if self.real is None:
            return []
        items = [item for held in self._held_out.values() for item in held if isinstance(item.get("image"), str)]
        scans = [RealScan(_name(item["image"]), self.real.folder / item["image"], item) for item in items]
        return _decathlon.held_out_lines(self, rows, scans)

    @property
    def _held_out(self) -> dict[str, list[Mapping[str, Any]]]:
        """Items of the sections that are not trained on."""
        tree = {} if self.real is None else self.real.tree
        known = [name for name in _SECTIONS if name in tree]
        return {name: [{"image": one} if isinstance(one, str) else one for one in tree[name]] for name in known}

    @classmethod
    def read(cls, folder: Path) -> RealSet:
        """The `training` items of `dataset.json`."""
        tree = read_json(folder / "dataset.json")
        items = tree.get("training", [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            hint = "name a folder with a datalist of MONAI, or set augment.layout=medvae"
            raise InputError("`training` is not a list of objects", path=folder / "dataset.json", hint=hint)
        if any(not isinstance(item.get("image", ""), str) for item in items):
            hint = "name a datalist with one image per item, or set augment.layout=medvae"
            raise InputError(
                "an item of `training` has several images, samples have one", path=folder / "dataset.json", hint=hint
            )
        scans = [
            RealScan(str(item["image"]), folder.absolute() / str(item["image"]), item)
            for item in items
            if "image" in item
        ]
        return RealSet(folder.absolute(), tree, tuple(scans))

    def check(self) -> None:
        """Classes are numbers in `dataset.json`, and label maps have the values that it names."""
        super().check()
        _decathlon.check_labels(self)
        _decathlon.check_classes(self)


def _name(image: str) -> str:
    """What a scan is called, as ids of training scans end."""
    return image.rpartition("/")[2].removesuffix(".gz").removesuffix(".nii")
