"""Time and peak memory of `medvae detect` in one 1 mm whole head, run as a user runs it.

    python benchmarks/detect.py --model MODEL [--data FOLDER] [--rounds N] [--workers N]

MODEL is a model folder for whole heads (`brain-mri-t1`), calibrated or not. Each round is a separate process: imports,
loading the model, reading, registration, maps, montage, writing. Memory is the resident memory of that process and its
children together, sampled every 20 ms (shared pages are counted twice; Linux only). If FOLDER (default: shared/data
beside the checkout) has no head, the 1 mm template of nilearn is used.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from medvae.prepare import template

DATA = Path(__file__).parents[2] / "shared" / "data"
HEAD = "brains-t1-native/trio-head-1mm.nii.gz"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="time and peak memory of medvae detect in a 1 mm whole head")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="processes that read ahead; not needed for one scan")
    options = parser.parse_args()
    head = options.data / HEAD if (options.data / HEAD).is_file() else template.path("t1")
    print(f"medvae detect, {head.name}, {options.workers} workers")
    rounds = []
    for _ in range(options.rounds):
        rounds.append(run(head, options.model, workers=options.workers))
        print("  {:6.1f} s   {:6.2f} GiB".format(*rounds[-1]), flush=True)
    seconds, memory = zip(*rounds, strict=True)
    print(f"median {median(seconds):.1f} s (target: 30), peak {max(memory):.2f} GiB (target: 3)")


def run(head: Path, model: Path, *, workers: int) -> tuple[float, float]:
    """One run in a separate process: seconds, and peak memory in GiB."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        command = [sys.executable, "-m", "medvae", "detect", str(head), "--model", str(model), "--out", str(out)]
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen([*command, "--workers", str(workers), "--quiet"], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, sum(resident(one) for one in family(process.pid)))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"medvae detect failed with exit code {process.returncode}")
        if not list(out.glob("scans/*/montage.png")):
            raise SystemExit("medvae detect wrote no montage")
    return seconds, peak / 2**30


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for one in found:
        try:
            threads = list(Path(f"/proc/{one}/task").iterdir())
            found += [int(child) for task in threads for child in (task / "children").read_text().split()]
        except OSError:  # the process has ended
            continue
    return found


def resident(pid: int) -> int:
    """Resident memory in bytes; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
