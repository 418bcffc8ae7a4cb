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
            if path.suffix in (".py", ".yaml", ".typed", ".html", ".css", ".js"):
                assert f"{target}/{path.relative_to(ROOT / source).as_posix()}" in names
    assert any(name.endswith("/licenses/NOTICE") for name in names), "the template's terms go along"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files in a folder of their own; the packages it needs are those of this environment."""
    site = tmp_path_factory.mktemp("site")
    ZipFile(wheel).extractall(site)
    return site


def run(installed: Path, *words: str, cwd: Path) -> str:
    """What Python says, with the installed package before the checkout, outside of it."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    found = run(
        installed,
        "-c",
        "import medvae, medvae.pipelines; print(medvae.__file__, medvae.pipelines.__file__)",
        cwd=tmp_path,
    )
    assert found.count(str(installed)) == 2
    command = ("-m", "medvae")
    assert "research use only" in run(installed, *command, "--help", cwd=tmp_path).lower()
    shown = run(installed, *command, "detect", "--help", cwd=tmp_path)
    assert "residual_z" in shown, "plug-ins are found in the installed package"
    assert "brain-mri-t1" in run(installed, *command, "train", "--help", cwd=tmp_path)


SMALL_DEMO = """
from medvae.cli.main import main
from medvae.pipelines import demo

demo.SIZES.update(train=2, calibrate=2, test=2)
demo.SYNTHETIC = 2
settings = ["train.steps=2", "train.batch=1", "train.validation=0", "model.options.channels=[16]"]
settings += ["prepare.spacing=[8, 8, 8]", "prepare.shape=[24, 28, 24]"]
raise SystemExit(main(["demo", "--workers", "0", *(word for text in settings for word in ("--set", text))]))
"""


def test_the_demo_runs_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    said = run(installed, "-c", SMALL_DEMO, cwd=tmp_path)
    assert "chance: AP" in said
    made = tmp_path / "medvae-demo"
    assert (made / "model" / "model.json").is_file()
    assert len(list(made.glob("maps/scans/*/residual_z.nii.gz"))) == 2
    assert len(list(made.glob("synthetic/images/*.nii.gz"))) == 2
