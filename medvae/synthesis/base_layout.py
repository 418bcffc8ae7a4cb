"""The contract of layouts: what a file in `layouts/` offers, and how its lists hold real scans beside synthetic ones.

A layout is one file with a class `Layout(BaseLayout)`. The first line of its docstring is its help text. Other packages
add layouts through entry points of the group `medvae.layouts`.

A set may be appended to a real one of the same layout: its lists then hold the real scans, too, by their paths. No file
of the real set is changed, moved or copied.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from medvae.errors import InputError, SettingsError
from medvae.io.nifti.file import NiftiFile
from medvae.synthesis.draws import new_label_values
from medvae.synthesis.provenance import no_label_maps
from medvae.synthesis.to_scan import stored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.run.work import File
    from medvae.scan import Scan
    from medvae.synthesis.generate import Synthesizer
    from medvae.synthesis.rows import Row

BACKGROUND = "background"  # name of the value 0
REAL_ONLY = "name a real set without synthetic scans"
_YES = ("yes", "true", "1", "1.0")  # what lists and datalists say about a synthetic scan


@dataclass(frozen=True)
class Places:
    """Where the files of one sample lie, as paths below the output folder.

    Attributes:
        image: the scan, a file or a folder.
        label_map: its label map, if there is one.
        sidecar: JSON, how it was generated.
        mask: its foreground, if a reader would not find it in the scan.
    """

    image: str
    label_map: str
    sidecar: str
    mask: str


@dataclass(frozen=True)
class RealScan:
    """A scan of the real set.

    Attributes:
        id: its name in its own set.
        image: the file.
        item: what its set's list says about it; paths are absolute.
    """

    id: str
    image: Path
    item: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class RealSet:
    """A real set that a synthetic one is appended to.

    Attributes:
        folder: where it lies, absolute.
        tree: its list, as far as it says something of the set as a whole.
        scans: its training scans.
    """

    folder: Path
    tree: Mapping[str, Any] = field(repr=False)
    scans: tuple[RealScan, ...] = field(repr=False)


@dataclass(frozen=True, eq=False)
class BaseLayout(ABC):
    """How a set is written.

    - `places(id)` is a function of the id alone, and no two ids share a place.
    - `lists` gives the files about the whole set, `labels.csv` among them; `audit.csv`, `montage.png`, `run.json` and
      `manifest.jsonl` are written for every layout.
    - `check` is called before anything is generated.

    Attributes:
        synthesizer: what generates the samples.
        real: the set that the samples are appended to; None without one.
        with_pages: whether the image of a sample is one NIfTI file, from which its page can be made.
    """

    with_pages: ClassVar[bool] = True

    synthesizer: Synthesizer
    real: RealSet | None = None

    @abstractmethod
    def places(self, one: str) -> Places:
        """Where the files of the sample with the id `one` lie."""

    def image(self, one: str, scan: Scan, *, description: str) -> tuple[File, ...]:
        """The files of the scan of the sample `one`, at its place.

        Args:
            one: id of the sample.
            scan: the synthetic scan.
            description: what it is and its unit.
        """
        return (NiftiFile(self.places(one).image, stored(scan), scan.geometry, description),)

    @abstractmethod
    def lists(self, rows: Sequence[Row], out: Path) -> tuple[File, ...]:
        """The files about all samples, the real ones included.

        Args:
            rows: the samples that were written, in the order of their numbers.
            out: the output folder, which paths of real scans are relative to.
        """

    @classmethod
    @abstractmethod
    def read(cls, folder: Path) -> RealSet:
        """The real set in a folder.

        Raises:
            InputError: it is no set of this layout, or one that synthetic scans cannot be appended to.
        """

    def check(self) -> None:
        """Refuse what cannot be written: here, names that label values cannot have, and scans that are not real.

        Raises:
            SettingsError: samples of this sampler cannot be written in this layout.
            InputError: they do not fit to the real set.
        """
        for scan in () if self.real is None else self.real.scans:
            if str(scan.item.get("synthetic")).lower() in _YES:
                raise InputError("the real set has synthetic scans", path=scan.image, hint=REAL_ONLY)
        self._check_label_names()

    def _check_label_names(self) -> None:
        """Raise a SettingsError unless names are of values that there are, one each: a list may be by names."""
        if unknown := sorted(set(self.synthesizer.settings.label_names) - set(self.label_values)):
            values = ", ".join(str(value) for value in self.label_values) or "none: the samples have no label maps"
            message = f"augment.label_names names the values {unknown}, the label maps have {values}"
            raise SettingsError(message, hint="correct the values, or leave out augment.label_names")
        called: dict[str, int] = {}
        for value in self.label_values:
            name = self.label_name(value)
            first = called.setdefault(name, value)
            if first != value:
                message = f"augment.label_names: the values {first} and {value} are both called {name!r}"
                raise SettingsError(message, hint="give each value a name of its own")
        if (wrong := called.get(BACKGROUND, 0)) != 0:
            message = f"augment.label_names: {BACKGROUND!r} is the name of 0, not of {wrong}"
            raise SettingsError(message, hint=f"give {wrong} another name")

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """What a person is told about the lists, one line each; nothing here."""
        return []

    def record(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The contents of a sidecar, from those of the layout `medvae`."""
        return dict(record)

    def labels(self, label_map: NDArray[np.int16]) -> NDArray[np.int16]:
        """The values of a label map as they are written."""
        return label_map

    @cached_property
    def label_values(self) -> tuple[int, ...]:
        """All values that label maps of samples may have and 0, ascending; empty where samples have no label maps."""
        if no_label_maps(self.synthesizer):
            return ()
        model = self.synthesizer.model
        maps = model.training.label_maps
        known = () if maps is None else (int(value) for value in np.unique(maps))
        return tuple(sorted({0, *model.vae.labels, *known, *new_label_values(self.synthesizer.fitted)}))

    @property
    def written_values(self) -> dict[int, int]:
        """Each value of the label maps as it is written -> the value that it has in those of the model."""
        written = self.labels(np.array(self.label_values, np.int16))
        return {int(value): known for value, known in zip(written, self.label_values, strict=True)}

    def label_name(self, value: int) -> str:
        """The name of a value: that of the settings, else "background" or the value itself."""
        known = self.synthesizer.settings.label_names
        return known.get(value, BACKGROUND if value == 0 else str(value))

    def require_label_maps(self, name: str) -> None:
        """Raise a SettingsError that names the layout, unless samples have label maps."""
        reason = no_label_maps(self.synthesizer)
        if reason is not None:
            message = f"the layout {name!r} is for segmentation and needs label maps: {reason.partition(': ')[2]}"
            hint = "set augment.sampler=classical on a model trained with label maps, or set augment.layout=medvae"
            raise SettingsError(message, hint=hint)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a real set.

    Raises:
        InputError: it is not there, cannot be read, or is not an object.
    """
    try:
        tree = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        hint = "name the folder of a set in the layout of augment.layout"
        raise InputError(f"the list of the real set cannot be read: {problem}", path=path, hint=hint) from None
    if not isinstance(tree, dict):
        raise InputError("the list of the real set is not a JSON object", path=path, hint="check the file")
    return tree


def relative(path: Path | str, folder: Path) -> str:
    """A path as seen from a folder, with "/" between its parts."""
    return Path(os.path.relpath(path, folder)).as_posix()
