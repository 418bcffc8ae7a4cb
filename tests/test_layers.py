"""The packages of the design, checked over the syntax tree: imports go downward, without circles, heavy ones apart.

Imports for type checking count, too: a type that only the package above knows does not belong below.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first; packages of one row do not know each other. A module belongs to the longest prefix of its name.
LAYERS = [
    ("medvae.errors",),
    ("medvae.plugins",),
    ("medvae.refusal", "medvae.written"),
    ("medvae.settings", "medvae.scan", "medvae.statistics", "medvae.threads"),
    ("medvae.io",),
    ("medvae.prepare",),
    ("medvae.cohort", "medvae.vae"),
    ("medvae.detector", "medvae.lesions"),
    ("medvae.checkpoint",),
    ("medvae.run",),
    ("medvae.training",),
    ("medvae.review", "medvae.dicom_objects"),
    ("medvae.anomaly", "medvae.synthesis"),
    ("medvae.evaluation",),
    ("medvae.simulate",),
    ("medvae.pipelines", "medvae.configs"),
    ("medvae.cli",),
    ("medvae.__main__",),
]
PLUGIN_FOLDERS = (
    "anomaly.maps",
    "synthesis.samplers",
    "vae.networks",
    "vae.likelihoods",
    "io.formats",
    "synthesis.layouts",
)
LIGHT = ("cli.main", "cli.parser", "cli.commands", "cli.console", "cli.words", "errors", "plugins", "__main__")
READING = (
    "medvae.io",
    "medvae.dicom_objects",
    "medvae.prepare",
    "medvae.cohort",
    "medvae.run",
    "medvae.scan",
    "medvae.settings",
)
HEAVY = {"torch", "monai", "lightning_fabric", "safetensors"}  # the reading workers never load these
LONGEST = 400  # lines of a file


@dataclass(frozen=True)
class Import:
    """One import: the module that is imported, whether it stands at the top of the file, whether it is for types."""

    target: str
    top: bool
    types: bool


@dataclass(frozen=True)
class Module:
    """One source file: its name as imported, its path, what it imports."""

    name: str
    path: Path
    imports: tuple[Import, ...]

    @property
    def ours(self) -> set[str]:
        """The modules of medvae that it imports."""
        return {one.target for one in self.imports if one.target.partition(".")[0] == "medvae"}


def _modules() -> list[Module]:
    files = [(path, "medvae") for path in sorted((ROOT / "medvae").rglob("*.py"))]
    files += [(path, "medvae.pipelines") for path in sorted((ROOT / "pipelines").rglob("*.py"))]
    return [_parse(path, package) for path, package in files]


def _parse(path: Path, package: str) -> Module:
    folder = ROOT / ("pipelines" if package == "medvae.pipelines" else "medvae")
    parts = [part for part in path.relative_to(folder).with_suffix("").parts if part != "__init__"]
    tree = ast.parse(path.read_text("utf-8"))
    return Module(".".join([package, *parts]), path, tuple(_imports(tree, top=True, types=False)))


def _imports(node: ast.AST, *, top: bool, types: bool) -> list[Import]:
    found: list[Import] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            found += [Import(alias.name, top, types) for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            found += [Import(_resolve(child.module or "", alias.name), top, types) for alias in child.names]
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for_types = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            found += _imports(child, top=top and not inside, types=types or for_types)
    return found


def _resolve(module: str, name: str) -> str:
    """`from medvae import plugins` imports medvae.plugins; `from medvae.scan import Scan` imports medvae.scan."""
    root, _, rest = module.partition(".")
    if root != "medvae":
        return module
    folder = ROOT / "pipelines" if rest.startswith("pipelines") else ROOT / "medvae" / rest.replace(".", "/")
    return f"{module}.{name}" if (folder / f"{name}.py").is_file() or (folder / name).is_dir() else module


def _layer(name: str) -> tuple[int, str]:
    """Rank and package of a module."""
    found = [
        (len(package), rank, package)
        for rank, packages in enumerate(LAYERS)
        for package in packages
        if name == package or name.startswith(f"{package}.")
    ]
    assert found, f"{name} belongs to no package: give it one in this file"
    _, rank, package = max(found)
    return rank, package


def _allowed(name: str, target: str) -> bool:
    (rank, package), (other, their_package) = _layer(name), _layer(target)
    return other < rank or package == their_package


MODULES = _modules()
every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


@every_module
def test_imports_go_only_downward(module: Module) -> None:
    if module.name == "medvae":
        return  # the lazy public names; test_public_api.py checks them
    wrong = sorted(target for target in module.ours - {"medvae"} if not _allowed(module.name, target))
    assert not wrong, f"{module.name} imports from a package above it or beside it: {wrong}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    names = {module.name for module in MODULES}
    graph = {module.name: module.ours & names - {module.name} for module in MODULES if module.name != "medvae"}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as problem:
        pytest.fail(f"a circle: {' -> '.join(problem.args[1])}")


@every_module
def test_the_library_never_imports_a_pipeline_and_pipelines_not_each_other(module: Module) -> None:
    pipelines = [target for target in module.ours if target.startswith("medvae.pipelines.")]
    if module.name not in ("medvae", "medvae.cli.commands", "medvae.pipelines.demo"):
        assert not pipelines


@every_module
def test_plugins_of_one_folder_do_not_import_each_other(module: Module) -> None:
    for folder in PLUGIN_FOLDERS:
        inside = f"medvae.{folder}."
        if not module.name.startswith(inside) or module.name.removeprefix(inside).startswith("_"):
            continue
        others = [target for target in module.ours if target.startswith(inside)]
        assert all(other.removeprefix(inside).startswith("_") for other in others), others


@every_module
def test_reading_and_preparing_load_neither_torch_nor_monai(module: Module) -> None:
    if module.name.startswith(READING):
        heavy = [i.target for i in module.imports if i.top and not i.types and i.target.partition(".")[0] in HEAVY]
        assert not heavy


@every_module
def test_nothing_is_implemented_in_an_init(module: Module) -> None:
    if module.path.name != "__init__.py" or module.name == "medvae":
        return
    body = ast.parse(module.path.read_text("utf-8")).body
    assert len(body) == 1, f"{module.path} holds more than its docstring"


@every_module
def test_only_the_command_line_prints(module: Module) -> None:
    if module.name.startswith("medvae.cli"):
        return
    rich = [i for i in module.imports if i.target.partition(".")[0] == "rich"]
    text = module.path.read_text("utf-8")
    assert not rich
    assert "sys.stdout" not in text
    assert "sys.stderr" not in text
    assert "medvae.cli" not in module.ours


@every_module
def test_the_library_speaks_python(module: Module) -> None:
    """Options are named by the command line alone; `medvae.cli.words` turns a library's text into them."""
    if module.name.startswith("medvae.cli"):
        return
    tree = ast.parse(module.path.read_text("utf-8"))
    docs = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}  # type: ignore[attr-defined]
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]
    assert not [text for text in texts if " --" in f" {text}" and "-- " not in text and "---" not in text]


def _has_docstring(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node) is not None


@pytest.mark.parametrize("name", LIGHT)
def test_the_command_line_starts_with_the_standard_library_alone(name: str) -> None:
    path = ROOT / "medvae" / f"{name.replace('.', '/')}.py"
    module = _parse(path, "medvae")
    ours = {f"medvae.{light}" for light in LIGHT} | {"medvae"}
    at_top = [i.target for i in module.imports if i.top and not i.types]
    assert not [target for target in at_top if target.partition(".")[0] in _third_party()]
    assert all(target in ours for target in at_top if target.startswith("medvae"))


def _third_party() -> set[str]:
    return {"numpy", "pydantic", "yaml", "scipy", "nibabel", "pydicom", "SimpleITK", "rich", "matplotlib"} | HEAVY


@every_module
def test_every_file_says_what_it_is_about_and_is_about_one_thing(module: Module) -> None:
    text = module.path.read_text("utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, f"{module.path.name} has no docstring"
    assert len(docstring.partition("\n")[0]) > 15
    assert len(text.splitlines()) <= LONGEST
