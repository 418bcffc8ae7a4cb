"""The layers of the design, checked over the syntax tree: imports go only downward, heavy ones only where allowed."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first. A module belongs to the rank of the longest prefix of its name; a rank may import itself and lower ones.
LAYERS = [
    ("medvae.errors",),
    ("medvae.scan", "medvae.settings", "medvae.plugins", "medvae.console", "medvae.configs"),
    (
        "medvae.vae",
        "medvae.likelihoods",
        "medvae.io",
        "medvae.cohort",
        "medvae.lists",
        "medvae.outcomes",
        "medvae.output",
    ),
    ("medvae.models", "medvae.reference", "medvae.prepare"),
    ("medvae.model",),
    ("medvae.inference",),
    (
        "medvae.maps",
        "medvae.samplers",
        "medvae.audit",
        "medvae.calibration",
        "medvae.findings",
        "medvae.training",
        "medvae.outline",
        "medvae.texture",
        "medvae.synthesis",
        "medvae.provenance",
    ),
    ("medvae.runner", "medvae.review", "medvae.evaluation"),
    ("medvae.pipelines",),
    ("medvae.cli",),
    ("medvae.__main__",),
]
PLUGIN_FOLDERS = ("maps", "samplers", "models")
LIGHT = (
    "cli",
    "console",
    "errors",
    "plugins",
    "__init__",
    "__main__",
)  # import nothing at the top but the standard library
HEAVY = {"torch", "monai", "lightning_fabric", "safetensors"}  # the reading workers never load these


@dataclass(frozen=True)
class Import:
    """One import: the module that is imported, and whether it stands at the top of the file."""

    target: str
    top: bool


@dataclass(frozen=True)
class Module:
    """One source file: its name as imported, its path, what it imports (type checking apart)."""

    name: str
    path: Path
    imports: tuple[Import, ...]


def _modules() -> list[Module]:
    files = [(path, "medvae") for path in sorted((ROOT / "medvae").rglob("*.py"))]
    files += [(path, "medvae.pipelines") for path in sorted((ROOT / "pipelines").rglob("*.py"))]
    return [_parse(path, package) for path, package in files]


def _parse(path: Path, package: str) -> Module:
    folder = ROOT / ("pipelines" if package == "medvae.pipelines" else "medvae")
    parts = [part for part in path.relative_to(folder).with_suffix("").parts if part != "__init__"]
    tree = ast.parse(path.read_text("utf-8"))
    return Module(".".join([package, *parts]), path, tuple(_imports(tree, top=True)))


def _imports(node: ast.AST, *, top: bool) -> list[Import]:
    found: list[Import] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found += [Import(alias.name, top) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            found += [Import(_resolve(child.module or "", alias.name), top) for alias in child.names]
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            found += _imports(child, top=top and not inside)
    return found


def _resolve(module: str, name: str) -> str:
    """`from medvae import io` imports the module medvae.io; `from medvae.scan import Scan` imports medvae.scan."""
    root, _, rest = module.partition(".")
    if root != "medvae":
        return module
    folder = ROOT / "pipelines" if rest.startswith("pipelines") else ROOT / "medvae" / rest.replace(".", "/")
    return f"{module}.{name}" if (folder / f"{name}.py").is_file() or (folder / name).is_dir() else module


def _rank(name: str) -> int:
    matches = [
        (len(p), rank) for rank, names in enumerate(LAYERS) for p in names if name == p or name.startswith(f"{p}.")
    ]
    assert matches, f"{name} belongs to no layer: give it one in this file"
    return max(matches)[1]


MODULES = _modules()
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


@every_module
def test_imports_go_only_downward(module: Module) -> None:
    if module.name == "medvae":
        return  # the package's lazy public names are checked below
    upward = [
        i.target for i in module.imports if i.target.startswith("medvae.") and _rank(i.target) > _rank(module.name)
    ]
    assert not upward, f"{module.name} imports from a layer above it: {upward}"


@every_module
def test_the_library_never_imports_a_pipeline_and_pipelines_not_each_other(module: Module) -> None:
    pipelines = [i.target for i in module.imports if i.target.startswith("medvae.pipelines.")]
    if module.name != "medvae.cli" and module.name != "medvae.pipelines.demo":
        assert not pipelines


@every_module
def test_plugins_of_one_folder_do_not_import_each_other(module: Module) -> None:
    for folder in PLUGIN_FOLDERS:
        inside = f"medvae.{folder}."
        if not module.name.startswith(inside) or module.name.removeprefix(inside).startswith("_"):
            continue
        others = [i.target for i in module.imports if i.target.startswith(inside)]
        assert all(other.removeprefix(inside).startswith("_") for other in others), others


@every_module
def test_reading_and_preparing_load_neither_torch_nor_monai(module: Module) -> None:
    light = module.name.startswith(("medvae.io", "medvae.prepare")) and module.name != "medvae.prepare.randomize"
    light = light or module.name in (
        "medvae.scan",
        "medvae.cohort",
        "medvae.reference",
        "medvae.runner",
        "medvae.settings",
    )
    if light:
        heavy = [i.target for i in module.imports if i.target.partition(".")[0] in HEAVY]
        assert not heavy


@every_module
def test_only_the_console_imports_rich(module: Module) -> None:
    rich = [i for i in module.imports if i.target.partition(".")[0] == "rich"]
    assert not rich or (module.name == "medvae.console" and not any(i.top for i in rich))


@pytest.mark.parametrize("name", LIGHT)
def test_the_command_line_starts_with_the_standard_library_alone(name: str) -> None:
    path = ROOT / "medvae" / f"{name}.py"
    module = _parse(path, "medvae")
    ours = {f"medvae.{light}" for light in LIGHT} | {"medvae"}
    outside = [i.target for i in module.imports if i.top and i.target.partition(".")[0] in _third_party()]
    assert not outside
    assert all(i.target in ours for i in module.imports if i.top and i.target.startswith("medvae"))


def _third_party() -> set[str]:
    return {"numpy", "pydantic", "yaml", "scipy", "nibabel", "pydicom", "SimpleITK", "rich", "matplotlib"} | HEAVY


@every_module
def test_every_file_says_what_it_is_about(module: Module) -> None:
    docstring = ast.get_docstring(ast.parse(module.path.read_text("utf-8")))
    if module.name != "medvae.__main__":
        assert docstring, f"{module.path.name} has no docstring"
        assert len(docstring.partition("\n")[0]) > 15
