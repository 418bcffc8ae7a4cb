"""The names that `import medvae` offers: true, lazy, and free until they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import medvae


@pytest.mark.parametrize("name", medvae.__all__)
def test_every_name_is_there_and_is_no_module(name: str) -> None:
    """A submodule of the same name would take the name's place as soon as it is imported."""
    value = getattr(medvae, name)
    assert not isinstance(value, ModuleType)
    assert value.__doc__


@pytest.mark.parametrize("name", ["load_settings", "load_model", "find", "read", "detect", "train"])
def test_help_shows_the_public_name(name: str) -> None:
    assert getattr(medvae, name).__name__ == name


def test_the_list_is_sorted_and_complete() -> None:
    assert list(medvae.__all__) == sorted(medvae.__all__)
    assert set(medvae.__all__) == set(medvae._HOMES)
    assert set(dir(medvae)) == {*medvae.__all__, "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'foo'"):
        _ = medvae.foo


def test_importing_costs_nothing() -> None:
    heavy = ("numpy", "torch", "monai", "nibabel", "pydantic", "rich", "yaml")
    code = f"import medvae, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_script_beside_a_clone_of_this_name_finds_presets_and_plugins(tmp_path: Path) -> None:
    (tmp_path / "medvae").symlink_to(Path(__file__).resolve().parent.parent)
    code = "import medvae; from medvae import plugins; print(plugins.names('formats'), plugins.presets(), medvae.find)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nifti" in done.stdout
    assert "brain-mri-t1" in done.stdout
