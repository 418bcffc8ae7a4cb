"""Label maps that a network decodes with the image: how accurate on unseen scans, how like real ones in samples.

    python benchmarks/decoded_labels.py --model MODEL --scans LIST.csv [--split unseen] [--sampler density] [--count 20]
        [--picture FILE.png]

Per structure: Dice of the label map that is decoded from the code of an unseen scan (the encoder sees its image alone);
volume, and share of the largest piece (26 neighbours), of the kept training scans, of first draws and of the samples
that are taken; why draws were rejected; CPU seconds. The picture has the first samples above, training scans below,
with the borders of their structures.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

from medvae.checkpoint.folder import load
from medvae.cohort.find import find
from medvae.prepare.load import ReadAndPrepare
from medvae.scan import Selection
from medvae.synthesis.synthesize import whole_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.checkpoint.model import Model
    from medvae.prepare.preparation import Prepared
    from medvae.synthesis.generate import Sample

    Labels = NDArray[np.int16]

_SHOWN = 8
_COLOURS = ("tab:red", "tab:cyan", "tab:orange", "tab:green")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="decoded label maps: of unseen scans, and of samples")
    parser.add_argument("--model", type=Path, required=True, help="model folder of a network that decodes label maps")
    parser.add_argument("--scans", type=Path, required=True, help="list with the columns split and label_map")
    parser.add_argument("--split", default="unseen", help="split whose scans the model has not seen")
    parser.add_argument("--sampler", default="density")
    parser.add_argument("--count", type=int, default=20, help="samples; 0 for none")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    model = load(options.model)
    read = ReadAndPrepare(model.settings.read, model.preparation)
    refs = find(Selection((options.scans,), split=options.split), model.settings.read).refs
    _unseen(model, [read(ref).prepared for ref in refs])
    if options.count:
        samples = _samples(model, options.sampler, options.count)
        if options.picture is not None:
            _picture(samples, model, options.picture)


def _unseen(model: Model, scans: Sequence[Prepared]) -> None:
    """Dice of decoded label maps, and squared error of decoded images."""
    rows, errors = [], []
    for one in scans:
        z = model.encode_prepared(one).mean[0].cpu().numpy()
        found = model.decode_labels(z, conditions=one.conditions)
        assert found is not None
        assert one.label_map is not None
        rows.append([_dice(found == value, one.label_map[0] == value) for value in model.vae.labels])
        rebuilt = model.reconstruct_prepared(one)
        errors.append(float(np.square(rebuilt - one.image)[one.mask].mean()))
    for value, column in zip(model.vae.labels, zip(*rows, strict=True), strict=True):
        print(f"unseen, label {value}: Dice {_spread(column)}")
    print(f"unseen: Dice {np.mean(rows):.3f}, squared error {_spread(errors)}")


def _samples(model: Model, sampler: str, count: int) -> list[Sample]:
    """Volumes and pieces of the label maps of training scans, first draws and samples."""
    whole, start = whole_set(model, {"sampler": sampler}, seed=0, device="cpu"), time.process_time()
    first = [whole.synthesizer.sample(index) for index in range(count)]
    seconds = (time.process_time() - start) / count
    faults = [whole.plausible.faults(one) for one in first]
    print(f"{sampler}: {seconds:.2f} CPU s per draw; rejected first draws {sum(map(bool, faults))} of {count}")
    print(f"  {dict(Counter(one.text.partition(',')[0].rpartition(' ')[0] for each in faults for one in each))}")
    kept = model.training.label_maps
    assert kept is not None
    drawn = [one.label_map for one in first if one.label_map is not None]
    taken = [one for one, fault in zip(drawn, faults, strict=True) if not fault]
    for name, maps in (("training", list(kept)), ("first draws", drawn), ("plausible draws", taken)):
        for value in model.vae.labels:
            _structure(f"{name}, label {value}", [one[0] == value for one in maps], model)
    return [one for one, fault in zip(first, faults, strict=True) if not fault]


def _structure(name: str, masks: Sequence[NDArray[np.bool_]], model: Model) -> None:
    volumes = [mask.sum() * model.preparation.grid.voxel_volume / 1000 for mask in masks]
    shares = [_largest_piece(mask) for mask in masks]
    whole = sum(share == 1 for share in shares)
    print(f"{name}: {_spread(volumes)} mL, SD {np.std(volumes):.2f}; in one piece {whole} of {len(masks)}, ", end="")
    print(f"largest piece {_spread(shares)}")


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))


def _largest_piece(mask: NDArray[np.bool_]) -> float:
    sizes = np.bincount(ndimage.label(mask, np.ones((3, 3, 3)))[0].ravel())[1:]
    return float(sizes.max() / sizes.sum()) if len(sizes) else 0.0


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" if len(values) else "none"


def _picture(samples: Sequence[Sample], model: Model, path: Path) -> None:
    """Two planes through the middle of the structures, of samples and of training scans."""
    kept = model.training
    assert kept.label_maps is not None
    made = [(one.image[0], one.label_map[0]) for one in samples[:_SHOWN] if one.label_map is not None]
    real = list(zip(kept.images[:, 0].astype(np.float32), kept.label_maps[:, 0], strict=True))
    figure, axes = plt.subplots(4, _SHOWN, figsize=(1.6 * _SHOWN, 7), squeeze=False)
    for row, scans in ((0, made), (2, real)):
        for column, (image, labels) in enumerate(scans[:_SHOWN]):
            x, _, z = np.argwhere(labels > 0).mean(axis=0).round().astype(int)
            _plane(axes[row, column], image[x].T, labels[x].T)
            _plane(axes[row + 1, column], image[:, :, z].T, labels[:, :, z].T)
    for axis in axes.flat:
        axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=90)


def _plane(axis: plt.Axes, image: NDArray[np.float32], labels: Labels) -> None:
    axis.imshow(image, cmap="gray", origin="lower", vmin=-2.5, vmax=2.5)
    for value, colour in zip(np.unique(labels[labels > 0]), _COLOURS, strict=False):
        axis.contour(labels == value, [0.5], colors=colour, linewidths=0.8)


if __name__ == "__main__":
    main()
