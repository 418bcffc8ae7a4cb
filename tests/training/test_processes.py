"""Two processes that train together (DDP over gloo on the CPU): one run, the same steps and weights in both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import small_model
from safetensors.numpy import load_file

from medvae.checkpoint.model import build_vae
from medvae.training.store import store

PROGRAM = """
import sys
from pathlib import Path
from lightning_fabric import Fabric
from safetensors.torch import save_file
import small_model
from medvae.checkpoint.model import build_vae
from medvae.training.store import Scans
from medvae.training.fit import fit

folder = Path(sys.argv[1])
files = sorted((folder / "cache").iterdir())
settings = small_model.settings(train={"batch": 1, "minutes": 0.002, "validate_every": 2})
vae = build_vae(settings)
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
roles = Scans(files[:4]), Scans(files[4:])
epochs = list(fit(vae, *roles, settings, fabric=fabric, folder=folder / "run", resume=False))
assert epochs[-1].step == epochs[-1].steps
state = {name: value.contiguous() for name, value in vae.state_dict().items()}
save_file(state, folder / f"rank-{fabric.global_rank}.safetensors")
"""


def test_two_processes_end_with_the_same_weights(tmp_path: Path) -> None:
    for index in range(6):
        store(small_model.scan(index), tmp_path / "cache" / f"{index}.safetensors")
    (tmp_path / "program.py").write_text(PROGRAM, "utf-8")
    paths = os.pathsep.join([str(Path(small_model.__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "program.py", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1))
    initial = build_vae(small_model.settings()).state_dict()
    assert first.keys() == second.keys() == initial.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], initial[name].numpy()) for name in first)
    assert float(first["observation.log_scale"]) != 0, "the spread was frozen in both"
