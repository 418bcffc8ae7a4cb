"""Other networks versus the VAE of medvae, trained for equal minutes: maps of simulated lesions and of MS patients.

    python benchmarks/rivals.py --prepare  --scans FOLDER [--data DATA]
    python benchmarks/rivals.py --train    --scans FOLDER --out OUT --minutes M [--device cuda]
    python benchmarks/rivals.py --evaluate --scans FOLDER --out OUT [--data DATA] [--device cuda]
    python benchmarks/rivals.py --table    --out OUT
        [--nets NAME ...] [--seeds 0 1 2]

`--prepare` makes the prepared scans: FOLDER/train, calibrate, test and patients. `--train` fits each network with
`medvae.training.fit` (objective, batches, optimiser, schedule, averaged weights) and writes OUT/NAME-SEED.pt, half
precision. `--evaluate` adds a line per network and seed to OUT/scores.jsonl, and `--table` prints all lines below OUT.

The lesions and the healthy scans are those of `maps.py`. Each network gets four maps of r = x − x̂:

- `residual`: |r|.
- `median`: the rule of Kascenas et al. (MIDL 2022): |r| inside an eroded foreground, median of 5×5×5 voxels.
- `z`: as the map `residual_z` without winsorisation: |r| in units of its healthy mean and spread, over three scales.
- `residual_z`: with it: x̂ is the reconstruction of the scan clipped to mean ± 1 SD of the training scans.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from threading import Lock
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from maps import DATA, SHAPES, chosen_shapes, with_lesion
from rival_networks import NETS, UNTRAINED
from rival_tables import FORMS, report
from torch.nn import functional as F

from medvae.anomaly.maps import residual_z
from medvae.anomaly.maps._shared import smooth_inside
from medvae.checkpoint.folder import find_device
from medvae.cli import console
from medvae.cohort.find import find
from medvae.evaluation.metrics import Draws, ScanVoxels, average_precision, pooled_ap, pooled_ap_draws
from medvae.evaluation.truth import LOWEST
from medvae.io.formats import nifti
from medvae.io.reading import read_mask
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.native import coverage, to_native
from medvae.prepare.preparation import Preparation
from medvae.scan import Selection
from medvae.settings import Settings, load
from medvae.simulate.lesions import Kind
from medvae.statistics import Moments, Normal
from medvae.training.fabric import make_fabric
from medvae.training.fit import fit
from medvae.training.roles import held_out
from medvae.training.store import Scans, fetch, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from medvae.prepare.preparation import Prepared
    from medvae.vae.base import VAE

    Volume = NDArray[np.float32]

PRESET = "brain-mri-t1"
WINDOW = 5  # voxels of the median, and of the mean that erodes
OPTIONS = residual_z.Settings()


def main() -> None:
    """Do what is asked for."""
    options = parse()
    console.configure(quiet=True)
    warnings.simplefilter("ignore")
    if options.prepare:
        prepare(options.data, options.scans)
    runs = [(name, seed) for name in options.nets for seed in options.seeds]
    if options.train or options.evaluate:
        options.out.mkdir(parents=True, exist_ok=True)
    for name, seed in runs if options.train else ():
        train(name, seed, options)
    if options.evaluate:
        material = Material.from_folder(options.scans, options.data)
        for name, seed in runs:
            evaluate(name, seed, material, options)
    if options.evaluate or options.table:
        report(options.out)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="other networks, trained for equal minutes: maps of lesions")
    for action in ("prepare", "train", "evaluate", "table"):
        parser.add_argument(f"--{action}", action="store_true")
    parser.add_argument("--scans", type=Path, help="folder with prepared scans: train, calibrate, test, patients")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with brains-t1, ms-lesions, folders of masks")
    parser.add_argument("--out", type=Path, help="folder of weights and scores")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    parser.add_argument("--minutes", type=float, default=4.0, help="training time per network and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    return parser.parse_args()


def prepare(data: Path, folder: Path) -> None:
    """Prepare all scans that are not there yet."""
    settings = load(PRESET)
    read = ReadAndPrepare(settings.read, Preparation(settings.prepare))
    people = find(Selection((data / "brains-t1" / "split.csv",)), settings.read).refs
    patients = find(Selection((data / "ms-lesions",), include=("*t1.nii.gz",)), settings.read).refs
    for ref in (*people, *patients):
        file = folder / (ref.split or "patients") / f"{ref.id}.safetensors"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            store(read(ref).prepared, file)


def train(name: str, seed: int, options: argparse.Namespace) -> None:
    """Train a network and write its weights."""
    settings = load(PRESET, (f"train.minutes={options.minutes}", f"seed={seed}"))
    torch.manual_seed(seed)
    net, steps, begun = NETS[name](settings), 0, time.monotonic()
    if name not in UNTRAINED:
        fabric = make_fabric(options.device, precision="auto")
        with tempfile.TemporaryDirectory() as scratch:
            roles = training_scans(options.scans / "train", settings)
            epochs = list(fit(net, *roles, settings, fabric=fabric, folder=Path(scratch), resume=False))
        steps = epochs[-1].step
    facts = {"steps": steps, "seconds": time.monotonic() - begun, "device": device_name(options.device)}
    weights = {key: value.detach().cpu().half() for key, value in net.state_dict().items()}
    torch.save({"weights": weights, "facts": facts}, options.out / f"{name}-{seed}.pt")
    console.out(f"{name} {seed}: {steps} steps in {facts['seconds']:.0f} s on {facts['device']}")


def training_scans(folder: Path, settings: Settings) -> tuple[Scans, Scans]:
    """Those that are learned from, and those of the validation subjects."""
    subjects = {file: fetch(file).subject for file in sorted(folder.glob("*.safetensors"))}
    aside = held_out(list(subjects.values()), share=settings.train.validation, seed=0)
    roles: dict[bool, list[Path]] = {False: [], True: []}
    for file, subject in subjects.items():
        roles[subject in aside].append(file)
    return Scans(roles[False]), Scans(roles[True])


def device_name(device: str) -> str:
    """What computes."""
    if find_device(device).startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


# ------------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True, eq=False)
class Case:
    """A scan with a lesion: simulated (`column` says which) or a patient's (`column` is its id)."""

    scan: Prepared
    truth: NDArray[np.bool_]
    column: str


@dataclass(frozen=True, eq=False)
class Material:
    """What all networks are evaluated on, and the training scans' mean and spread by voxel."""

    training: Sequence[Prepared]
    healthy: Sequence[Prepared]
    test: Sequence[Prepared]
    simulated: Sequence[Case]
    patients: Sequence[Case]
    foregrounds: Mapping[str, NDArray[np.bool_]]
    usual: Normal

    @classmethod
    def from_folder(cls, folder: Path, data: Path) -> Material:
        """Read the prepared scans, and implant the lesions."""
        settings = load(PRESET)
        scans = {
            split: [fetch(file) for file in sorted((folder / split).glob("*.safetensors"))]
            for split in ("train", "calibrate", "test", "patients")
        }
        jobs = list(dealt(scans["test"], data))

        def made(job: tuple[str, Kind, Prepared, Path]) -> Case:
            shapes, kind, scan, path = job
            ill, truth = with_lesion(scan, path, settings.prepare, kind=kind)
            return Case(ill, truth, f"{shapes}, {kind}")

        patients, foregrounds = [], {}
        for scan in scans["patients"]:
            place = data / "ms-lesions" / scan.id.split("_")[0].split("-")[0]
            image, geometry = nifti.read_values(place / "t1.nii.gz", settings.read)
            patients.append(Case(scan, read_mask(place / "mask.nii.gz", geometry, settings.read), scan.id))
            foregrounds[scan.id] = image != 0
        return cls(
            scans["train"],
            [*scans["calibrate"], *scans["test"]],
            scans["test"],
            list(threaded(made, jobs)),
            patients,
            foregrounds,
            sums((one.image, one.mask) for one in scans["train"]).normal(spacing=scans["train"][0].grid.spacing),
        )

    def clipped(self, scan: Prepared) -> Volume:
        """The foreground within mean ± `winsor` SD of the training scans."""
        reach = np.float32(OPTIONS.winsor) * self.usual.sd
        return np.where(scan.mask, np.clip(scan.image, self.usual.mean - reach, self.usual.mean + reach), scan.image)


def dealt(scans: Sequence[Prepared], data: Path) -> Iterator[tuple[str, Kind, Prepared, Path]]:
    """Set of shapes, kind, scan and shape of each lesion, as in `maps.py`."""
    for shapes, folder in SHAPES.items():
        chosen = chosen_shapes(data / folder, 3 * len(scans), rank=1)
        for kind in get_args(Kind):
            for place, scan in enumerate(scans):
                for path in chosen[place :: len(scans)]:
                    yield shapes, kind, scan, path


def threaded(function: Any, jobs: Sequence[Any]) -> Iterator[Any]:
    """The function of each job in order, by as many threads as there are processors."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(function, jobs)


def sums(pairs: Any) -> Moments:
    """Of pairs of values and mask."""
    moments: Moments | None = None
    for values, mask in pairs:
        moments = moments or Moments.empty(values.shape)
        moments.add(values, mask)
    assert moments is not None
    return moments


class Rival:
    """A network with the healthy statistics of its residuals, each subject left out in turn."""

    def __init__(self, net: VAE, material: Material, *, device: str) -> None:
        self.net, self.material, self.device = net.to(device).eval(), material, device
        self.spacing = material.training[0].grid.spacing
        self.one_at_a_time = Lock()  # the requests of many threads at once do not fit into a device's memory
        self.prior, self.moments, self.own = {}, {}, {}
        for form in FORMS[2:]:
            residuals = [(self.residual(one, form), one.mask) for one in material.training]
            self.prior[form] = sums(residuals).normal(spacing=self.spacing)
            self.own[form] = {one.subject: (self.residual(one, form), one.mask) for one in material.healthy}
            self.moments[form] = sums(self.own[form].values())
        self.normals = dict(zip(self.keys(), threaded(self.normal, self.keys()), strict=True))

    def keys(self) -> list[tuple[str, str]]:
        """Form, and the subject that is left out ("": none)."""
        return [(form, subject) for form in FORMS[2:] for subject in ("", *(one.subject for one in self.material.test))]

    def normal(self, key: tuple[str, str]) -> Normal:
        """Mean and spread of the residuals of all healthy scans but those of a subject."""
        form, subject = key
        moments = self.moments[form]
        rest = moments.without(*self.own[form][subject]) if subject else moments
        return rest.normal(spacing=self.spacing, prior=self.prior[form])

    @torch.inference_mode()
    def residual(self, scan: Prepared, form: str) -> Volume:
        """x − x̂, 0 outside the foreground."""
        seen = self.material.clipped(scan) if form == "residual_z" else scan.image
        with self.one_at_a_time:
            x = torch.from_numpy(seen)[None].to(self.device)
            expected = self.net.decode(self.net.encode(x).mean).mean[0].cpu().numpy()
        return np.where(scan.mask, scan.image - expected, np.float32(0))

    def maps(self, scan: Prepared) -> dict[str, Volume]:
        """All maps of a scan, `(X, Y, Z)`."""
        inside, plain = scan.mask[0], self.residual(scan, "residual")
        found = {"residual": np.abs(plain[0]), "median": self.median(np.abs(plain[0]), inside)}
        known = scan.subject if ("z", scan.subject) in self.normals else ""
        for form in FORMS[2:]:
            residual = plain if form == "z" else self.residual(scan, form)
            sizes = np.abs(self.normals[form, known].z(residual))[0]
            scales = [smooth_inside(sizes, inside, spacing=self.spacing, mm=mm) for mm in OPTIONS.scales_mm]
            found[form] = np.mean(scales, axis=0)
        return found

    @torch.inference_mode()
    def median(self, sizes: Volume, inside: NDArray[np.bool_]) -> Volume:
        """The rule of the denoising autoencoder, in three dimensions."""
        reach = WINDOW // 2
        with self.one_at_a_time:
            mask = torch.from_numpy(inside).to(self.device)
            eroded = F.avg_pool3d(mask[None, None].float(), WINDOW, stride=1, padding=reach)[0, 0] > 0.95
            kept = F.pad(torch.from_numpy(sizes).to(self.device) * eroded, (reach,) * 6)
            around = kept.unfold(0, WINDOW, 1).unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)
            result = torch.zeros(inside.shape, device=self.device)
            result[mask] = around[mask].flatten(1).median(dim=1).values
            values: Volume = result.cpu().numpy()
        return values


def evaluate(name: str, seed: int, material: Material, options: argparse.Namespace) -> None:
    """Add the scores of a network to the file."""
    begun = time.monotonic()
    kept = torch.load(options.out / f"{name}-{seed}.pt", map_location="cpu", weights_only=True)
    net = NETS[name](load(PRESET, (f"seed={seed}",)))
    net.load_state_dict({key: value.float() for key, value in kept["weights"].items()})
    rival = Rival(net, material, device=find_device(options.device))

    def voxels(case: Case) -> tuple[str, ScanVoxels]:
        inside = case.scan.mask[0]
        found = {form: values[inside] for form, values in rival.maps(case.scan).items()}
        return case.column, ScanVoxels(case.scan.subject, case.truth[inside], found)

    columns: dict[str, list[ScanVoxels]] = {}
    for column, one in threaded(voxels, material.simulated):
        columns.setdefault(column, []).append(one)
    pairs = [(form, column) for form in FORMS for column in columns]
    found = dict(zip(pairs, threaded(lambda pair: scores(columns[pair[1]], pair[0]), pairs), strict=True))
    errors = [np.square(rival.own["z"][one.subject][0][one.mask]).mean() for one in material.test]
    line = {
        "net": name,
        "seed": seed,
        **kept["facts"],
        "weights": sum(p.numel() for p in net.parameters()),
        "error": fmean(map(float, errors)),
        "ap": {form: {column: found[form, column] for column in columns} for form in FORMS},
        "patients": {one.column: patient(rival, one, material) for one in material.patients},
        "evaluated in": time.monotonic() - begun,
    }
    with open(options.out / "scores.jsonl", "ab", buffering=0) as file:  # in one piece: others may be writing to it
        file.write(f"{json.dumps(line)}\n".encode())
    console.out(f"{name} {seed}: evaluated in {line['evaluated in']:.0f} s")


def scores(scans: Sequence[ScanVoxels], form: str) -> dict[str, Any]:
    """AP of all scans of a column together, and of each draw of subjects."""
    draws = Draws.from_subjects(scan.subject for scan in scans)
    value = pooled_ap(scans, form)
    drawn = pooled_ap_draws(scans, form, draws=draws, value=value)
    return {"ap": value, "draws": np.round(drawn, 5).tolist()}


def patient(rival: Rival, case: Case, material: Material) -> dict[str, float]:
    """AP of each map on the patient's own grid, over the whole foreground, as `medvae evaluate detect` has it."""
    foreground = material.foregrounds[case.column]
    unseen = ~coverage(case.scan)[foreground].astype(bool)
    found = {}
    for form, values in rival.maps(case.scan).items():
        heat = np.where(unseen, LOWEST, to_native(values, case.scan)[foreground])
        found[form] = average_precision(case.truth[foreground], heat)
    return found


if __name__ == "__main__":
    main()
