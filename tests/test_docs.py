"""The docs cannot rot: README blocks run, every setting, plug-in, preset and command is described.

`python tests/test_docs.py` writes docs/settings.md and the table of docs/inputs.md anew.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel

import medvae
from medvae import plugins
from medvae.cli.main import main
from medvae.cli.parser import make_parser
from medvae.cohort import lists
from medvae.errors import CODES
from medvae.settings import Settings, configure, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TITLES: dict[plugins.Kind, str] = {
    "maps": "Maps (`--map`)",
    "samplers": "Samplers (`--sampler`)",
    "networks": "Networks (`model.name`)",
    "likelihoods": "Likelihoods (`likelihood.family`)",
    "formats": "Formats",
    "layouts": "Layouts (`--layout`)",
}
PAGE = """# Settings

Every setting with its default. A preset (`--config NAME`) or a YAML file changes some of them; `--set key=value`
changes one. A preset is a file of `configs/`; a YAML file of yours may build on one (`base: brain-mri-t1`). This page
is generated from the code.
"""


def block(language: str) -> str:
    """The README blocks of a language, one after the other."""
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found
    return "".join(found)


@pytest.fixture
def place(brains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README names: `scans/`, `healthy/`, `new-scans/`."""
    for name, source in (("scans", "train"), ("healthy", "healthy"), ("new-scans", "new")):
        shutil.copytree(brains / source, tmp_path / name)
    shutil.move(tmp_path / "new-scans" / "ill.nii.gz", tmp_path / "new-scans" / "case.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_shell_block_runs(place: Path, small_config: Path) -> None:
    """As it stands, but for a tiny model instead of half an hour, and one process."""
    lines = block("sh").strip().splitlines()
    assert len(lines) == 5
    for line in lines:
        words = shlex.split(
            line.replace("--config brain-mri-t1", f"--config {small_config}").replace("--minutes 30", "")
        )
        assert words[0] == "medvae"
        more = ["--workers", "0"] if words[1] in ("train", "calibrate", "detect") else []
        words = [("2" if before == "--count" else word) for before, word in zip(["", *words], words, strict=False)]
        assert main([*words[1:], *more, "--quiet"]) == 0, line
    assert (place / "maps" / "scans" / "case" / "residual_z.nii.gz").is_file()
    assert (place / "synthetic" / "images" / "synthetic-00001.nii.gz").is_file()


def test_the_python_block_runs(place: Path, model_folder: Path) -> None:
    shutil.copytree(model_folder, place / "model")
    names: dict[str, Any] = {}
    exec(block("python"), names)
    scan = names["medvae"].read("new-scans/case.nii.gz")
    assert names["heat"].shape == names["image"].shape == scan.data.shape
    assert np.isfinite(names["heat"]).all()
    assert np.isfinite(names["average"]).all()
    assert (place / "out" / "case" / "residual_z.nii.gz").is_file()
    assert (place / "out" / "synthetic" / "images" / "synthetic-00001.nii.gz").is_file()


def examples() -> list[doctest.DocTest]:
    """Those of all docstrings but those of the commands, which need what other commands write."""
    names = (one.name for one in pkgutil.walk_packages(medvae.__path__, "medvae."))
    left_out = ("medvae.__main__", "medvae.pipelines")
    modules = [importlib.import_module(name) for name in names if not name.startswith(left_out)]
    return [one for module in modules for one in doctest.DocTestFinder().find(module) if one.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda one: one.name)
def test_the_examples_of_docstrings_run(example: doctest.DocTest, place: Path, model_folder: Path) -> None:
    """Beside `case.nii.gz`, `scans/`, `new-scans/` and `model/`; the trained model is `model`."""
    shutil.copytree(model_folder, place / "model")
    shutil.copy(place / "new-scans" / "case.nii.gz", "case.nii.gz")
    model = medvae.load_model("model")
    names = {"medvae": medvae, "np": np, "torch": torch, "model": model, "z": model.encode("case.nii.gz")}
    example.globs = {**names, "array": np.arange(120.0).reshape(4, 5, 6)}
    said: list[str] = []
    failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append).failed
    assert not failed, "".join(said)


def test_every_command_and_preset_is_in_the_readme() -> None:
    commands = next(action for action in make_parser()._actions if action.choices and "info" in action.choices)
    for name in (*(commands.choices or ()), *plugins.presets()):
        assert f"`{name}`" in README or f"medvae {name}" in README or f"make {name}" in README, name


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_plugin_says_what_it_is(kind: plugins.Kind) -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    for name in plugins.names(kind):
        assert plugins.summary(kind, name) in page, f"{kind}/{name}: run `python tests/test_docs.py`"


@pytest.mark.parametrize("name", plugins.presets())
def test_every_preset_is_valid(name: str) -> None:
    settings = load(name)
    for one in settings.detect.maps:
        configure("maps", one, settings.detect.options.get(one, {}))
    configure("samplers", settings.augment.sampler, settings.augment.options)
    module, options = configure("networks", settings.model.name, settings.model.options)
    module.build(options, settings.likelihood, settings.prepare.shape)


def test_the_page_of_settings_is_true() -> None:
    assert (ROOT / "docs" / "settings.md").read_text("utf-8") == page_of_settings(), "run `python tests/test_docs.py`"


def test_the_page_of_inputs_is_true() -> None:
    page = (ROOT / "docs" / "inputs.md").read_text("utf-8")
    assert page.endswith(table_of_codes()), "run `python tests/test_docs.py`"
    assert re.findall(r"^\| `(\w+)` \| (?!rejected|skipped|failed)", page, re.MULTILINE) == list(lists.COLUMNS)


def test_outputs_are_described(brains: Path, model_folder: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "outputs.md").read_text("utf-8")
    maps, made = tmp_path / "maps", tmp_path / "made"
    assert main(["detect", str(brains / "new"), "--model", str(model_folder), "--out", str(maps), "--quiet"]) == 0
    assert main(["augment", "--model", str(model_folder), "--out", str(made), "--count", "2", "--quiet"]) == 0
    files = (path for root in (maps, made, model_folder) for path in root.rglob("*") if path.is_file())
    files = (path for path in files if path.parent.name != "page")
    names = {
        re.sub(r"synthetic-\d+|(ill|well)(?=\.html)", "<id>", re.sub(r"(tfevents).*", r"\1", path.name))
        for path in files
    }
    assert {name for name in names if name not in page} <= {f"{name}.nii.gz" for name in plugins.names("maps")}
    tables = [maps / "scores.csv", made / "labels.csv", made / "audit.csv"]
    columns = {name for table in tables for name in table.read_text("utf-8").partition("\n")[0].split(",")}
    told = set(re.findall(r"`([\w<>]+)`", "\n".join(re.findall(r"^\|(.*?)\|", page, re.MULTILINE))))
    longest_first = "|".join(sorted(plugins.names("maps"), key=len, reverse=True))
    assert {re.sub(longest_first, "<map>", name, count=1) for name in columns} <= told


def anchors(page: Path) -> set[str]:
    """Those that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there and, where they name a section, to one of its headings."""
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def table_of_codes() -> str:
    rows = [f"| `{name}` | {code.status} | {code.meaning} | {code.hint} |" for name, code in CODES.items()]
    return "\n".join(["| code | ends as | meaning | what to do |", "|---|---|---|---|", *rows]) + "\n"


def page_of_settings() -> str:
    parts = [PAGE, "| setting | default | what it does |\n|---|---|---|\n" + "\n".join(_rows(Settings, ""))]
    for kind, title in TITLES.items():
        lines = [f"\n## {title}\n\n| name | what it is | options |\n|---|---|---|"]
        for name in plugins.names(kind):
            options = getattr(plugins.load(kind, name), "Settings", None)
            known = (
                []
                if options is None
                else [f"`{k}` ({_default(f)}): {f.description}" for k, f in options.model_fields.items()]
            )
            lines.append(f"| `{name}` | {plugins.summary(kind, name)} | {'; '.join(known)} |")
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n"


def _rows(model: type[BaseModel], before: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = [kind for kind in (field.annotation, *get_args(field.annotation)) if _is_model(kind)]
        if inner:
            yield from _rows(inner[0], f"{before}{name}.")
        else:
            assert field.description, f"{before}{name} has no description"
            yield f"| `{before}{name}` | {_default(field)} | {field.description} |"


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "none" if value is None else f"`{str(value).replace('|', ' ')}`"


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(page_of_settings(), "utf-8")
    inputs = ROOT / "docs" / "inputs.md"
    inputs.write_text(inputs.read_text("utf-8").partition("| code |")[0] + table_of_codes(), "utf-8")
