"""Synthetic scans while a network is trained on them, not written: a dataset of torch and a transform of MONAI.

Both give what `medvae.synthesize` gives: sample number i depends on the model, the settings and the seed only, so the
items are the same whatever the number of workers. The copy screen is fitted only where samples are not derived from
named subjects, and then at once: this takes up to minutes.
"""

from __future__ import annotations

import logging
from operator import index as whole_number
from typing import TYPE_CHECKING, Any, Literal

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from torch.utils.data import Dataset

from medvae.errors import ScanError, SettingsError
from medvae.synthesis.provenance import no_label_maps
from medvae.synthesis.synthesize import require_whole, whole_set
from medvae.synthesis.synthetic import SampleJob
from medvae.synthesis.to_scan import to_scan

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.scan import Scan
    from medvae.synthesis.generate import Sample

_HIGHEST = 2**31 - 1  # numbers of samples that the transform draws from
_TRIES = 10  # numbers in a row all of whose draws may be implausible

log = logging.getLogger(__name__)


class SyntheticDataset(Dataset[dict[str, Any]]):
    """A dataset of synthetic scans, each generated when it is asked for; for any number of worker processes.

    An item is a dictionary:

    - `image`: MONAI `MetaTensor` float32 `(1, X, Y, Z)` along R, A, S in the unit of the training scans, with its
      affine (RAS+ mm);
    - `label`: its label map, `MetaTensor` int16 of the same shape, if the sampler gives one;
    - `class`: its class, if the training scans have classes;
    - `id`, `sources`: its name, and the training scans that it is derived from, separated by semicolons.

    Scans that are used as a whole have the sizes of their sources: crop or pad before they are put into a batch.

    Args:
        model: the model, or its folder.
        count: how many scans.
        sampler: name of a sampler; None for that of the model's settings.
        options: of the sampler.
        classes: shares of the classes: as among the training scans, or all equal.
        seed: of everything random.
        device: where `model` is a folder; worker processes need "cpu".

    Raises:
        ModelError: the folder cannot be read, or the model holds too few training scans for the sampler.
        SettingsError: an unknown sampler or option, or a count that is not a whole number of at least 0.

    Example:
        >>> scans = medvae.SyntheticDataset("model", 100, sampler="classical")
        >>> item = scans[7]
        >>> item["image"].shape[0], item["image"].affine.shape
        (1, torch.Size([4, 4]))
    """

    def __init__(
        self,
        model: Model | Path | str,
        count: int,
        *,
        sampler: str | None = None,
        options: Mapping[str, Any] | None = None,
        classes: Literal["training", "balanced"] | None = None,
        seed: int | None = None,
        device: str = "cpu",
    ) -> None:
        require_whole(count)
        given = {"sampler": sampler, "options": options, "classes": classes}
        self.whole = whole_set(model, given, seed=seed, device=device)
        self.count = count
        # Worker processes begin with a copy of this object, in every epoch anew: each would fit the screen again.
        self.whole.fit_screen_if_needed()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item number `index`.

        Raises:
            IndexError: there is none.
            ScanError: `implausible`, where all draws of this number were rejected.
            TypeError: `index` is not a whole number.
        """
        index = whole_number(index)  # of torch and NumPy, too: a sampler may give them
        if not -self.count <= index < self.count:
            raise IndexError(f"item {index} of {self.count}")
        sample = self.whole.accepted(index % self.count).sample
        item = as_item(sample, self.whole.synthesizer.model)
        return {name: value for name, value in item.items() if name != "class" or name in self.parts}

    @property
    def parts(self) -> tuple[str, ...]:
        """The keys of an item that a network is trained on: "image", "label" and "class" where all have one."""
        synthesizer = self.whole.synthesizer
        label = () if no_label_maps(synthesizer) else ("label",)
        classes = () if None in synthesizer.weights else ("class",)
        return ("image", *label, *classes)


class RandSyntheticd(RandomizableTransform, MapTransform):  # type: ignore[misc]
    """MONAI dictionary transform: with a probability, a synthetic scan takes the place of the item's own.

    It belongs after loading and before every transform that changes size or values: the synthetic scan is like a file
    of the training scans, channel first. What is drawn comes from `self.R`, as in all of MONAI: `set_random_state`
    makes it repeatable, and MONAI's loader seeds each worker. Where all draws of a synthetic scan are implausible, the
    one with the next number is taken.

    Args:
        keys: what is replaced.
        model: the model, or its folder.
        prob: probability that an item is replaced.
        parts: for each key, which part of the synthetic scan it gets ("image", "label" or "class"); None if the keys
            have these names.
        sampler: name of a sampler; None for that of the model's settings.
        options: of the sampler.
        seed: of the scans; which of them are drawn is up to `set_random_state`.
        allow_missing_keys: leave out keys that an item does not have.

    Raises:
        ModelError: as `SyntheticDataset`.
        SettingsError: as `SyntheticDataset`; a part that the sampler does not give.
        ScanError: when called: `implausible`, where this holds for ten numbers in a row.

    Example:
        >>> mix = medvae.RandSyntheticd(["image"], "model", prob=0.5).set_random_state(0)
        >>> sorted(mix({"image": torch.zeros(1, 8, 8, 8)}))
        ['image']
    """

    def __init__(
        self,
        keys: Hashable | Sequence[Hashable],
        model: Model | Path | str,
        *,
        prob: float = 0.5,
        parts: Sequence[str] | None = None,
        sampler: str | None = None,
        options: Mapping[str, Any] | None = None,
        seed: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.scans = SyntheticDataset(model, _HIGHEST, sampler=sampler, options=options, seed=seed)
        self.parts = tuple(str(key) for key in self.keys) if parts is None else tuple(parts)
        self.number = 0
        if len(self.parts) != len(self.keys) or not set(self.parts) <= set(self.scans.parts):
            message = f"the synthetic scans have the parts {', '.join(self.scans.parts)}, not {', '.join(self.parts)}"
            raise SettingsError(message, hint="pass one of them per key, e.g. keys=['img'], parts=['image']")

    def randomize(self, data: Any = None) -> None:
        """Draw whether to replace, and by which scan."""
        super().randomize(None)
        self.number = int(self.R.randint(_HIGHEST))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item, or a copy of it with the parts of a synthetic scan."""
        self.randomize()
        changed = dict(data)
        if self._do_transform:
            scan = self._plausible()
            for key, part in self.key_iterator(changed, self.parts):
                changed[key] = scan[part]
        return changed

    def _plausible(self) -> dict[str, Any]:
        """The scan of the number that was drawn, or the next one that is not rejected: training must not stop there."""
        for number in range(self.number, self.number + _TRIES - 1):
            try:
                return self.scans[number % _HIGHEST]
            except ScanError as problem:
                log.info("%s; the next number is tried", problem)
        return self.scans[(self.number + _TRIES - 1) % _HIGHEST]


def as_item(sample: Sample, model: Model) -> dict[str, Any]:
    """A sample as an item of a dataset."""
    scan, label_map = to_scan(sample, model)
    name = SampleJob(sample.index).id
    item: dict[str, Any] = {"image": _tensor(scan.data, scan, name), "id": name, "sources": ";".join(sample.sources)}
    if label_map is not None:
        item["label"] = _tensor(label_map, scan, name)
    if sample.label is not None:
        item["class"] = sample.label
    return item


def _tensor(values: NDArray[np.float32] | NDArray[np.int16], scan: Scan, name: str) -> MetaTensor:
    """Channel first, on the scan's grid."""
    meta = {"filename_or_obj": name, "synthetic": True}
    return MetaTensor(torch.from_numpy(values.copy())[None], affine=scan.geometry.affine.copy(), meta=meta)
