"""How long the pages of a `detect` or `augment` run take to build and to open, and how large they are.

    python benchmarks/review.py OUT [--rows 200] [--rounds 3]
    python benchmarks/review.py SCAN... --model MODEL [--rounds 3]

With `--model`, `detect` runs over each scan with and without pages in turn, and the CPU time of both is compared: what
the pages add to a run, in pairs, on a machine that others may use, too. Pin it to one core (`taskset -c 0`).

OUT is an output folder of `medvae detect` or `medvae augment` with pages. Building a page is timed from the files on
the disk, as the run does it after it has written them (for `detect` with the picture of the scan), and compared with
the seconds that the manifest has for the rest of the scan. The worklist of `detect` is opened in headless Chromium with
the scans of OUT repeated to `--rows` rows; it is interactive when all rows are laid out and a click has sorted them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from medvae.io.formats import nifti
from medvae.io.nifti.file import NiftiFile
from medvae.pipelines import detect
from medvae.review.grey import Grey
from medvae.review.montage import Picture
from medvae.review.sample_list import SampleList
from medvae.review.sample_page import SamplePage
from medvae.review.scan_page import SCAN, ScanPage
from medvae.review.thumbnail import Thumbnail
from medvae.review.worklist import Worklist
from medvae.run.manifest import Manifest
from medvae.run.record import read_record
from medvae.scan import Geometry
from medvae.settings import ReadSettings

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from chromium import Browser, executable

if TYPE_CHECKING:
    from medvae.run.outcomes import Outcome

SORT = "document.querySelectorAll('thead button')[0].click(); document.querySelector('table').offsetHeight"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="time and size of the pages of a detect run")
    parser.add_argument("paths", type=Path, nargs="+", metavar="OUT|SCAN")
    parser.add_argument("--model", type=Path, help="run detect with this model over the scans, with and without pages")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.model:
        in_pairs(options.paths, options.model, rounds=options.rounds)
    elif read_record(options.paths[0])["command"] == "augment":
        samples(options.paths[0], done_in(options.paths[0]), rounds=options.rounds)
    else:
        detections(options.paths[0], rounds=options.rounds, rows=options.rows)


def done_in(out: Path) -> list[Outcome]:
    """Of the scans that ended well."""
    return [one for one in Manifest(out / "manifest.jsonl").outcomes().values() if one.status == "ok"]


def in_pairs(scans: list[Path], model: Path, *, rounds: int) -> None:
    """Print the CPU seconds of `detect` without pages, and what they add, of each scan: medians over the rounds."""
    print("| scan | detect without pages, CPU s | the pages add, s | share |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for scan in scans:
            detected(scan, model, Path(scratch), review=True)  # what is loaded once is loaded
            pairs = []
            for number in range(rounds):
                order = (True, False) if number % 2 else (False, True)
                seconds = {review: detected(scan, model, Path(scratch), review=review) for review in order}
                pairs.append((seconds[False], seconds[True] - seconds[False]))
            rest, more = (median(one) for one in zip(*pairs, strict=True))
            print(f"| {scan.name} | {rest:.2f} | {more:.2f} | {more / rest:.1%} |", flush=True)


def detected(scan: Path, model: Path, out: Path, *, review: bool) -> float:
    """CPU seconds of this process for one run of `detect`."""
    begun = time.process_time()
    text = f"detect.review={'true' if review else 'false'}"
    detect.run([scan], model=model, out=out, overrides=(text,), device="cpu", overwrite=True)
    return time.process_time() - begun


def detections(out: Path, *, rounds: int, rows: int) -> None:
    """Print the time and size of each page of a run, and how soon a worklist of this many rows can be used."""
    done = [one for one in done_in(out) if (out / ScanPage(one.id).name).is_file()]
    print("| scan | voxels | detect, s | page, CPU s | share | page, MB |\n|---|---|---|---|---|---|")
    for one in done:
        seconds = median(built(out, one.id) for _ in range(rounds))
        shape = nib.load(out / "scans" / one.id / SCAN).shape
        size = (out / ScanPage(one.id).name).stat().st_size / 1e6
        rest = one.seconds - seconds  # the manifest's seconds contain those of the page
        print(f"| {one.id} | {shape} | {rest:.1f} | {seconds:.2f} | {seconds / rest:.1%} | {size:.1f} |", flush=True)
    if executable():
        with tempfile.TemporaryDirectory() as scratch:
            index = worklist(out, Path(scratch), done, rows=rows)
            size, seconds = index.stat().st_size / 1e6, opened(index)
            print(f"worklist of {rows} rows, {size:.1f} MB: {seconds:.2f} s until interactive")


def samples(out: Path, done: list[Outcome], *, rounds: int) -> None:
    """Print the times of a set's pages: median over its samples, of the best of some rounds."""
    seconds, rest = [], []
    for one in done:
        values, _ = nifti.read_values(out / str(one.facts["image"]), ReadSettings())
        page, times = SamplePage.of(one.id, one, values=values), []
        for _ in range(rounds):
            begun = time.perf_counter()
            page.write(out)
            times.append(time.perf_counter() - begun)
        seconds.append(min(times))
        rest.append(one.seconds - (min(times) if page.name in one.outputs else 0))
    begun = time.perf_counter()
    SampleList(read_record(out), done).write(out)
    index = (time.perf_counter() - begun) / len(done)
    size = median((out / SamplePage.of(one.id, one).name).stat().st_size for one in done) / 1e6
    print("| samples | augment, s | page, s | worklist, s a sample | share | page, MB |\n|---|---|---|---|---|---|")
    share = (median(seconds) + index) / median(rest)
    print(f"| {len(done)} | {median(rest):.2f} | {median(seconds):.3f} | {index:.3f} | {share:.1%} | {size:.2f} |")


def built(out: Path, name: str) -> float:
    """CPU seconds for all that `detect.review` adds to one scan."""
    folder = out / "scans" / name
    found = json.loads((folder / "findings.json").read_text("utf-8"))
    image, heat = nib.load(folder / SCAN), nib.load(folder / f"{found['map']}.nii.gz")
    scan, values = (np.asarray(one.dataobj, np.float32) for one in (image, heat))
    covered = np.asarray(nib.load(folder / "coverage.nii.gz").dataobj) > 0
    geometry = Geometry(scan.shape, image.affine)
    maps = {key: np.asarray(nib.load(folder / f"{key}.nii.gz").dataobj, np.float32) for key in found["scores"]}
    limit, at = found["scores"][found["map"]]["limit"], np.zeros((1, 3), np.intp)
    picture = Picture(scan, values, covered, geometry, at, (0.0,), (0,), limit, found["unit"])
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.process_time()
        grey = Grey.of(scan, covered, units=found["units"])
        NiftiFile("scan.nii.gz", grey.data, geometry, description="", scale=grey.scale).write(Path(scratch))
        Thumbnail("thumbnail.png", picture).write(Path(scratch))
        ScanPage(name, maps=maps).write(out)
        return time.process_time() - begun


def worklist(out: Path, place: Path, done: list[Outcome], *, rows: int) -> Path:
    """The worklist of this many scans, copies of those that are there."""
    outcomes = []
    for number in range(rows):
        one = done[number % len(done)]
        copy = replace(one, id=f"{one.id}-{number:03d}")
        (place / "scans" / copy.id).mkdir(parents=True)
        for name in ("findings.json", "thumbnail.png"):
            shutil.copy(out / "scans" / one.id / name, place / "scans" / copy.id)
        (place / ScanPage(copy.id).name).parent.mkdir(parents=True, exist_ok=True)
        (place / ScanPage(copy.id).name).touch()
        outcomes.append(copy)
    shutil.copy(out / "run.json", place)
    return Worklist.of_run(place, outcomes).write(place)


def opened(index: Path) -> float:
    """Seconds from the request to a sorted table; the third of three visits, as a warm browser has it."""
    with Browser() as browser:
        tab = browser.tab()
        for _ in range(3):
            tab.open("about:blank")
            tab.open(index)
            tab.js(SORT)
            milliseconds = tab.js("performance.getEntriesByType('navigation')[0].loadEventEnd")
            begun = time.perf_counter()
            tab.js(SORT)
            seconds = milliseconds / 1000 + time.perf_counter() - begun
    return float(seconds)


if __name__ == "__main__":
    main()
