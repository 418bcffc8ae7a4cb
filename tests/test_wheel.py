"""The built wheel: everything in it, nothing beside it, and a command that works outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing an earlier build left in the checkout gets into it."""
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in ("medvae", "pipelines", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    assert wheel.name.startswith("medvae_toolkit-")
    names = set(ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert tops == {"medvae"}, "a top-level `pipelines` would clash with folders of that name"
    for source, target in (("medvae", "medvae"), ("pipelines", "medvae/pipelines"), ("configs", "medvae/configs")):
        for path in (ROOT / source).rglob("*"):
            if path.suffix in (".py", ".yaml", ".typed"):
                assert f"{target}/{path.relative_to(ROOT / source).as_posix()}" in names
    assert any(name.endswith("/licenses/NOTICE") for name in names), "the template's terms go along"


def test_the_command_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    ZipFile(wheel).extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "medvae", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [sys.executable, "-c", "import medvae, medvae.pipelines; print(medvae.__file__, medvae.pipelines.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.count(str(tmp_path)) == 2
    assert "research use only" in run("--help").lower()
    assert "residual_z" in run("detect", "--help"), "plug-ins are found in the installed package"
    assert "brain-mri-t1" in run("train", "--help")
