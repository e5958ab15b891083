"""The project as a whole: what its files promise, and which way its imports point."""

from __future__ import annotations

import ast
import configparser
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PACKAGES = ("cyclegan_tf", "tfrecords_tools")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))
TEXTS = {".py", ".md", ".cfg", ".toml", ".txt", ".json", ".yml", ".yaml", ".j2", ".html", ".sh", ""}
PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")

# Small modules that know nothing of the rooms.
LEAVES = {"config", "environment", "errors", "files", "locking", "cluster", "torch_file"}
# What each room may import of the others. Commands (the modules at the top) may import everything.
ROOMS = {
    "cyclegan_tf/models": LEAVES,
    "cyclegan_tf/data": LEAVES | {"tfrecords_tools"},
    "cyclegan_tf/reporting": LEAVES,
    "cyclegan_tf/evaluation": LEAVES | {"data", "models"},
    "cyclegan_tf/training": LEAVES | {"data", "models", "evaluation", "reporting"},
    "cyclegan_tf/exporting": LEAVES | {"tfrecords_tools", "data", "models", "training"},
    "tfrecords_tools": LEAVES | {"data"},
}


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def imports(path: Path) -> set[str]:
    """The full name of everything that a module imports, at once or later."""
    return {name for node in ast.walk(parsed(path)) for name in imported_by(node)}


def imported_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"a relative import of {node.module}"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def room_of(name: str) -> str | None:
    """The room that an imported name lies in; None if it is not ours."""
    first, *rest = name.split(".")
    return {"cyclegan_tf": rest[0] if rest else "", "tfrecords_tools": first}.get(first)


def repository_files() -> list[Path]:
    """The text files of the repository, without what building and running leaves."""
    passed = {".git", "runs", "build", "dist", "__pycache__"}
    found = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if passed & set(parts) or any(part.startswith(".venv") for part in parts):
            continue
        if any(part.endswith((".egg-info", "_cache")) for part in parts):
            continue
        if path.is_file() and path.suffix in TEXTS:
            found.append(path)
    return found


# --- Modules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_every_module_and_public_name_is_explained(path):
    tree = parsed(path)
    assert ast.get_docstring(tree) or not tree.body
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    own = room.split("/")[-1]
    for path in (ROOT / room).rglob("*.py"):
        assert {room_of(name) for name in imports(path)} - {None, own} <= ROOMS[room], path


def test_only_the_commands_parse_arguments():
    for room in ROOMS:
        if room != "tfrecords_tools":
            for path in (ROOT / room).rglob("*.py"):
                assert "argparse" not in imports(path), path


def test_only_the_layers_know_which_stack_they_run_on():
    for path in MODULES:
        if path != ROOT / "cyclegan_tf" / "models" / "layers.py":
            text = path.read_text(encoding="utf-8")
            names = {name.split(".")[0] for name in imports(path)}
            assert not names & {"tensorflow_addons", "tf_keras", "keras"}, path
            assert not re.search(r"(keras|tf|tensorflow)\.(__version__|version)\b", text), path


def names_in(module: str) -> set[str]:
    """What can be imported from one of our modules: what it defines or imports, and modules."""
    place = ROOT / module.replace(".", "/")
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    names = {below.stem for below in place.glob("*")}
    for node in parsed(path).body if path.exists() else []:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            stored = (one for one in ast.walk(node) if isinstance(one, ast.Name))
            names |= {one.id for one in stored if isinstance(one.ctx, ast.Store)}
    return names


@pytest.mark.parametrize("path", BENCHMARKS, ids=ids)
def test_a_benchmark_imports_only_what_is_there(path):
    ours = [name.rpartition(".") for name in imports(path) if name.split(".")[0] in PACKAGES]
    assert not [(module, name) for module, _, name in ours if name not in names_in(module)]


# --- Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")}), ids=ids
)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|^    .*?$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)  # outside code
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_readme_names_only_what_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    modules = re.findall(r"-m ((?:cyclegan_tf|tfrecords_tools)\.\w+)", text)
    assert modules
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    tree = text[text.index("## Where things are") :]
    rows = re.findall(r"^ {4,6}(?=\w)(.*)$", tree, re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"(?<![\w/])\w+(?:/|\.py)(?=\s)", row)]
    assert {"train.py", "presets.py", "data/", "tests/"} <= set(names)
    for name in names:
        assert (ROOT / name).exists() or (ROOT / "cyclegan_tf" / name).exists(), name


def test_files_that_are_no_code_are_installed_as_well():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    installed = {
        path
        for package, patterns in setup["options.package_data"].items()
        for pattern in patterns.split()
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    found = {
        path
        for room in ("cyclegan_tf", "tfrecords_tools")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert installed and found == installed


def test_the_readme_names_every_preset():
    from cyclegan_tf.presets import PRESETS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in PRESETS:
        short = re.sub(r"^selfie2anime(?=-v[23])", "", name)
        assert f"`{name}`" in text or f"`{short}`" in text, name


def test_no_package_index_is_named():
    """Where packages come from is a matter of the machine's pip, not of this repository."""
    hosts = ("pypi." + "org", "python" + "hosted", "--index" + "-url", "--extra-index" + "-url")
    for path in repository_files():
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not [host for host in hosts if host in text], path


# --- Requirements --------------------------------------------------------------------------------


def pins(name: str, python: str) -> dict[str, Requirement]:
    """The requirements of a file that count for a Python version, by name."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return active((line.split(" #")[0] for line in lines if not line.startswith("#")), python)


def active(lines, python: str) -> dict[str, Requirement]:
    found = [Requirement(line) for line in lines if line.strip()]
    here = {"python_version": python}
    return {one.name: one for one in found if not one.marker or one.marker.evaluate(here)}


def setup_requirements(option: str, key: str, python: str) -> dict[str, Requirement]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return active(setup[option][key].splitlines(), python)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("file", "option", "key"),
    [
        ("requirements.txt", "options", "install_requires"),
        ("requirements-test.txt", "options.extras_require", "test"),
    ],
)
def test_the_tested_pins_satisfy_what_setup_asks_for(file, option, key, python):
    asked, pinned = setup_requirements(option, key, python), pins(file, python)
    assert set(pinned) - {"keras"} == set(asked)  # Keras comes with TensorFlow.
    for name, requirement in asked.items():
        (pin,) = pinned[name].specifier
        # On Python 3.11, with either TensorFlow, one goes by the version of that.
        assert pin.operator == "==" or (name, python) == ("tensorflow-serving-api", "3.11")
        assert requirement.specifier.contains(pin.version), name


@pytest.mark.parametrize("extra", ["serving", "tflite", "video", "pytorch"])
def test_the_tests_use_every_extra(extra):
    asked = setup_requirements("options.extras_require", extra, "3.11")
    tests = setup_requirements("options.extras_require", "test", "3.11")
    assert asked
    assert {name: str(one) for name, one in asked.items()}.items() <= {
        name: str(one) for name, one in tests.items()
    }.items()


def test_the_newer_stack_is_pinned_alike_for_every_python():
    """Apart from Python's own reach: on 3.12 and newer it is what requirements.txt installs."""
    newer, default = pins("requirements-keras3.txt", "3.12"), pins("requirements.txt", "3.12")
    assert {name: str(pin.specifier) for name, pin in newer.items()} == {
        name: str(pin.specifier) for name, pin in default.items()
    }
