"""nnU-Net v2 raw dataset: imagesTr/, labelsTr/, dataset.json, and splits_final.json that keeps donors apart."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.errors import InputError, SettingsError
from medvae.run.work import JsonFile
from medvae.synthesis import splits
from medvae.synthesis.base_layout import (
    BACKGROUND,
    REAL_ONLY,
    BaseLayout,
    Places,
    RealScan,
    RealSet,
    read_json,
    relative,
)
from medvae.synthesis.layouts._lists import labels_csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medvae.run.work import File
    from medvae.synthesis.rows import Row

_ENDING = ".nii.gz"
_CHANNELS = {"CT": "CT", "SHAPE": "noNorm"}  # names that choose a normalisation of nnU-Net; others are z-scored
_SAMPLE = re.compile(r"synthetic-\d{5,}")  # names of samples
_KEYS = {"channel_names": dict, "labels": dict, "file_ending": str}  # that a list needs, and what they are
_RAW = "name the raw folder of an nnU-Net v2 dataset with one channel and .nii.gz files"


class Layout(BaseLayout):
    """Label values are consecutive: those of the real set, or numbered anew in ascending order."""

    def places(self, one: str) -> Places:
        """An image's name ends with its channel; sidecars have a folder of their own."""
        return Places(
            f"imagesTr/{one}_0000{_ENDING}", f"labelsTr/{one}{_ENDING}", f"sidecars/{one}.json", f"masks/{one}{_ENDING}"
        )

    def labels(self, label_map: NDArray[np.int16]) -> NDArray[np.int16]:
        """Consecutive from 0; as they are beside a real set.

        Raises:
            ValueError: a value that `dataset.json` does not name: the sampler writes it and does not say so.
        """
        known = self.label_values
        if unknown := np.setdiff1d(label_map, known).tolist():
            raise ValueError(f"a sample has the label values {unknown}, the sampler writes {list(known)}")
        if self.real is not None:
            return label_map
        return np.searchsorted(known, label_map).astype(np.int16)

    def lists(self, rows: Sequence[Row], out: Path) -> tuple[File, ...]:
        """`labels.csv`, `dataset.json` and `splits_final.json`."""
        dataset = JsonFile("dataset.json", self._dataset(rows, out))
        return labels_csv(self, rows), dataset, JsonFile("splits_final.json", self._folds(rows))

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """Where the splits belong, and whether they leave anything to train on."""
        trained = {one for fold in self._folds(rows) for one in fold["train"]}
        found = ["copy splits_final.json into the dataset's folder in nnUNet_preprocessed, after planning"]
        if rows and not any(row.id in trained for row in rows):
            found.append(
                "no fold trains on a synthetic scan: the model has seen scans of every fold; train it on fewer of them"
            )
        return found

    @classmethod
    def read(cls, folder: Path) -> RealSet:
        """The training cases of a raw dataset."""
        tree = read_json(folder / "dataset.json")
        if missing := [name for name, kind in _KEYS.items() if not isinstance(tree.get(name), kind)]:
            message = f"not an nnU-Net v2 dataset: the list has no {', '.join(missing)}"
            raise InputError(message, path=folder / "dataset.json", hint=_RAW)
        if tree["file_ending"] != _ENDING or len(tree["channel_names"]) != 1:
            message = "synthetic scans have one channel and end in .nii.gz, the real set has other ones"
            raise InputError(message, path=folder / "dataset.json", hint=_RAW)
        cases = tree.get("dataset") or _cases(folder)
        if not isinstance(cases, dict) or not all(map(_is_case, cases.values())):
            message = "a case of `dataset` has no list `images` with one path, or no path `label`"
            raise InputError(message, path=folder / "dataset.json", hint=_RAW)
        root = folder.absolute()
        scans = [RealScan(name, root / case["images"][0], case) for name, case in sorted(cases.items())]
        return RealSet(root, {key: value for key, value in tree.items() if key != "dataset"}, tuple(scans))

    def check(self) -> None:
        """Every sample needs a label map, with values that the real set names."""
        self.require_label_maps("nnunet")
        super().check()
        if self.label_name(0) != BACKGROUND:
            message = f"augment.label_names: nnU-Net calls the value 0 {BACKGROUND!r}, not {self.label_name(0)!r}"
            raise SettingsError(message, hint="leave out the name of 0")
        if self.real is None:
            return
        if clash := [scan.id for scan in self.real.scans if _SAMPLE.fullmatch(scan.id)]:
            message = f"the real set has a case {clash[0]!r}, as samples are called"
            raise InputError(message, path=self.real.folder, hint=REAL_ONLY)
        named = self.real.tree["labels"].values()
        known = {one for value in named for one in (value if isinstance(value, list) else [value])}  # a list: a region
        if unknown := [value for value in self.label_values if value not in known]:
            message = f"the samples have the labels {unknown}, which the real set does not name"
            raise InputError(message, path=self.real.folder, hint="train on label maps with the values of the real set")

    def _dataset(self, rows: Sequence[Row], out: Path) -> dict[str, Any]:
        synthesizer = self.synthesizer
        modality = synthesizer.model.preparation.settings.modality or "unknown"
        tree: dict[str, Any] = {
            "name": "synthetic scans",
            "description": f"Synthetic scans from medvae, sampler {synthesizer.settings.sampler}. Research use only.",
            "channel_names": {"0": _CHANNELS.get(modality, modality)},
            "labels": {self.label_name(value): number for number, value in enumerate(self.label_values)},
            "numTraining": len(rows),
            "file_ending": _ENDING,
        }
        if self.real is None:
            return tree
        cases = {scan.id: _moved(scan, self.real.folder, out) for scan in self.real.scans}
        cases |= {row.id: {"images": [row.facts["image"]], "label": row.facts["label_map"]} for row in rows}
        return {**tree, **self.real.tree, "numTraining": len(cases), "dataset": cases}

    def _folds(self, rows: Sequence[Row]) -> list[dict[str, list[str]]]:
        """Only real scans are validated, where there are some; a decoded image holds everyone that the decoder saw."""
        latents = self.synthesizer.model.latents
        samples = splits.people_of_sources(rows, latents)
        if self.real is None:
            alone = {one: people or frozenset([one]) for one, people in samples.items()}
            return splits.folds(alone, alone)
        everyone = frozenset(latents.subjects)
        decoded = self.synthesizer.space == "latent"
        donors = {one: everyone if decoded or not people else people for one, people in samples.items()}
        return splits.folds({**self._people_of_real, **donors}, self._people_of_real)

    @cached_property
    def _people_of_real(self) -> dict[str, splits.People]:
        """Who was scanned in each real case; all of them are read."""
        assert self.real is not None
        return splits.people_of_real(self.real.scans, self.synthesizer.model.latents)


def _cases(folder: Path) -> dict[str, dict[str, Any]]:
    names = sorted(path.name.removesuffix(_ENDING) for path in (folder / "labelsTr").glob(f"*{_ENDING}"))
    return {
        name: {"images": [f"imagesTr/{name}_0000{_ENDING}"], "label": f"labelsTr/{name}{_ENDING}"} for name in names
    }


def _is_case(case: object) -> bool:
    """Whether an entry of `dataset` names one image and its label map."""
    if not isinstance(case, dict) or not isinstance(case.get("images"), list):
        return False
    return len(case["images"]) == 1 and all(isinstance(one, str) for one in (*case["images"], case.get("label")))


def _moved(scan: RealScan, folder: Path, out: Path) -> dict[str, Any]:
    images = [relative(folder / one, out) for one in scan.item["images"]]
    return {"images": images, "label": relative(folder / scan.item["label"], out)}
