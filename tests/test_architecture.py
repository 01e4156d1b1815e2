"""The floors: imports point down only, wherever they stand, and heavy libraries stay where they belong.

Imports are read from the source (inside functions and under ``TYPE_CHECKING`` too), and a string that names one of our
modules, such as the target of a child process or the beginning of a name that is looked up, counts as an import. That
the runtime really answers with its four libraries alone is shown in ``runtime/test_imports.py``, and on the built wheel
in ``test_packaging.py``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import keepsight
from keepsight import tasks

SOURCE = Path(keepsight.__file__).parent
PACKAGE = SOURCE.name

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"runtime", "errors", "plugins"}),
    frozenset({"store", "config", "executors"}),
    frozenset({"tasks", "zoo"}),
    frozenset({"data", "privacy"}),
    frozenset({"training", "labelling", "delivery"}),
    frozenset({"serving", "monitoring", "review"}),
    frozenset({"loop"}),
    frozenset({"cli", "web", "__main__"}),
)
FLOOR_OF = {unit: floor for floor, units in enumerate(FLOORS) for unit in units}

RUNTIME_LIBRARIES = {"numpy", "onnxruntime", "simplejpeg", "PIL"}
WEB_FRAMEWORKS = {"fastapi", "starlette", "uvicorn", "jinja2", "multipart"}
TORCH = {"torch", "torchvision", "timm"}
# The domain logic: it must be readable and testable without a web framework, and trainable without torch.
DOMAIN = ("monitoring", "data", "review", "training.gate", "tasks")
NAMES_OF_NOTHING = {"utils", "util", "helpers", "helper", "misc", "legacy", "common_utils", "v2"}
# What takes long to load; `keepsight --help` needs none of it.
HEAVY = {"sqlalchemy", "alembic", "torch", "onnxruntime", "sklearn", "scipy", "fastapi", "dbos", "onnx", "obstore"}

# A group of entry points is called like the package that its members join, and imports nothing.
GROUP_OF_ENTRY_POINTS = {"plugins": "keepsight.tasks"}

# Where a task is chosen for somebody who did not say which.
DEFAULT_TASK = {"config.table": "classification", "cli.server": "classification"}
# A word of another program that happens to be a task's name: Label Studio's templates call a picture so, COCO a mask.
FOREIGN_WORD = {
    "data.importers.labelstudio": "ocr",
    "data.importers.coco": "segmentation",
    "data.exporters.coco": "segmentation",
}

MODULE_NAME = re.compile(rf"{PACKAGE}(\.[a-z_][a-z0-9_]*)+(\.|:[a-z_][a-z0-9_]*)?")


@dataclass(frozen=True)
class Import:
    """One import: in which module and line, and what."""

    module: str
    line: int
    target: str

    def __str__(self) -> str:
        return f"{self.module} line {self.line} imports {self.target}"


def module_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def module_name(path: Path) -> str:
    """``src/keepsight/store/schema.py`` -> ``store.schema``; the package itself -> an empty name."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def known_modules() -> frozenset[str]:
    return frozenset(module_name(path) for path in module_files())


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(found for path in module_files() for found in imports_of(path))


def imports_of(path: Path) -> Iterator[Import]:
    module = module_name(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = absolute(node, module=module, package=path.name == "__init__.py")
            for alias in node.names:
                yield Import(module, node.lineno, f"{start}.{alias.name}")
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and MODULE_NAME.fullmatch(node.value)
            and node.value != GROUP_OF_ENTRY_POINTS.get(module)
        ):
            yield Import(module, node.lineno, node.value.partition(":")[0])


def absolute(node: ast.ImportFrom, *, module: str, package: bool) -> str:
    """The absolute name of what stands after ``from``."""
    if node.level == 0:
        return node.module or ""
    here = [PACKAGE, *module.split(".")] if module else [PACKAGE]
    kept = here[: len(here) - node.level + (1 if package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def unit_of(module: str) -> str:
    """The package or top module that stands on a floor: ``store.schema`` -> ``store``."""
    return module.partition(".")[0]


def own_unit(target: str) -> str | None:
    """The unit that an import of ours points to; None for another library, or a name of the package itself."""
    top, _, rest = target.partition(".")
    if top != PACKAGE or not rest:
        return None
    unit = unit_of(rest)
    return unit if unit in {unit_of(name) for name in known_modules()} else None


def listed(violations: Sequence[object]) -> str:
    return "\n" + "\n".join(f"  {item}" for item in violations)


def test_every_package_has_a_floor() -> None:
    units = {unit_of(name) for name in known_modules()} - {""}
    homeless = sorted(units - FLOOR_OF.keys())
    assert not homeless, f"no floor is named for: {', '.join(homeless)}; a package gets one in DESIGN and in FLOORS"


def test_imports_point_down() -> None:
    wrong = []
    for found in all_imports():
        unit, target = unit_of(found.module), own_unit(found.target)
        if target is not None and target != unit and FLOOR_OF[target] > FLOOR_OF.get(unit, 0):
            wrong.append(f"{found}: floor {FLOOR_OF.get(unit, 0)} must not reach up to floor {FLOOR_OF[target]}")
    assert not wrong, listed(wrong)


def test_packages_of_one_floor_make_no_circle() -> None:
    graph: dict[str, dict[str, Import]] = {}
    for found in all_imports():
        unit, target = unit_of(found.module), own_unit(found.target)
        if unit and target is not None and target != unit:
            graph.setdefault(unit, {}).setdefault(target, found)
    circle = find_circle({unit: sorted(targets) for unit, targets in graph.items()})
    steps = [graph[unit][target] for unit, target in pairwise(circle)]
    assert not circle, f"{' -> '.join(circle)}:{listed(steps)}"


def find_circle(graph: dict[str, list[str]]) -> list[str]:
    """A way from a node back to itself, or nothing."""
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for target in graph.get(node, []):
            circle = walk(target, [*path, node])
            if circle:
                return circle
        done.add(node)
        return []

    return next((circle for node in sorted(graph) if (circle := walk(node, []))), [])


def test_a_circle_would_be_found() -> None:
    assert find_circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert find_circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_a_string_and_a_hidden_import_count_as_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SOURCE", tmp_path)
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / "hidden.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from keepsight.web import app\n"
        "def later():\n"
        "    from . import schema\n"
        "    import keepsight.loop.runs\n"
        '    return run("keepsight.training.run:train")\n'
    )
    assert [item.target for item in imports_of(path)][1:] == [
        "keepsight.web.app",
        "keepsight.store.schema",
        "keepsight.loop.runs",
        "keepsight.training.run",
    ]


def test_the_runtime_imports_four_libraries_and_the_errors() -> None:
    allowed = RUNTIME_LIBRARIES | set(sys.stdlib_module_names)
    wrong = [
        found
        for found in all_imports()
        if unit_of(found.module) in FLOORS[0]
        and found.target.partition(".")[0] not in allowed
        and own_unit(found.target) not in FLOORS[0]
    ]
    assert not wrong, listed(wrong)


def test_dbos_is_imported_in_the_loop_only() -> None:
    wrong = [
        found for found in all_imports() if found.target.partition(".")[0] == "dbos" and unit_of(found.module) != "loop"
    ]
    assert not wrong, listed(wrong)


def test_the_domain_knows_no_web_framework_and_no_torch() -> None:
    wrong = [
        found
        for found in all_imports()
        if any(found.module == name or found.module.startswith(f"{name}.") for name in DOMAIN)
        and found.target.partition(".")[0] in WEB_FRAMEWORKS | TORCH
    ]
    assert not wrong, listed(wrong)


def tasks_named_outside() -> Iterator[str]:
    """Places where the program has the name of a task as a text, but not in a file of that task."""
    names = set(tasks.names())
    for path in module_files():
        module = module_name(path)
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        said_of_weights = {
            id(keyword.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "task" and unit_of(module) == "zoo"
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and node.value in names
                and node.value not in module.split(".")
                and id(node) not in said_of_weights
                and node.value not in {DEFAULT_TASK.get(module), FOREIGN_WORD.get(module)}
            ):
                yield f"{module} line {node.lineno}: {node.value!r}"


def test_a_task_is_found_by_its_name_and_never_asked_for() -> None:
    assert not list(tasks_named_outside()), listed(list(tasks_named_outside()))
    templates = [path for kind in ("*.html", "*.js") for path in (SOURCE / "web").rglob(kind)]
    names = "|".join(tasks.names())
    asked = re.compile(rf"""(task\s*[=!]=+|[=!]=+\s*["'](?:{names})["']|["'](?:{names})["']\s*[=!]=)""")
    wrong = [path for path in templates if path.stem not in tasks.names() and asked.search(path.read_text("utf-8"))]
    assert not wrong, listed(wrong)


def test_a_switch_on_the_task_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.SOURCE", tmp_path)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / "runs.py").write_text('def start(task: str) -> bool:\n    return task == "moderation"\n')
    (tmp_path / "loop" / "moderation.py").write_text('NAME = "moderation"\n')
    assert list(tasks_named_outside()) == ["loop.runs line 2: 'moderation'"]


def test_no_module_is_named_after_nothing() -> None:
    wrong = [name for name in sorted(known_modules()) if NAMES_OF_NOTHING & set(name.split("."))]
    assert not wrong, f"a module is named for what it holds:{listed(wrong)}"


def test_every_package_says_what_it_is() -> None:
    wrong = [
        module_name(path) or PACKAGE
        for path in module_files()
        if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None and "versions" not in path.parts
    ]
    assert not wrong, f"no docstring at the top of:{listed(wrong)}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["data", "--help"], ["train", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import atexit, sys\n"
        f"heavy = {sorted(HEAVY)!r}\n"
        "atexit.register(lambda: print('loaded:', *[name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        "from keepsight.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "loaded:", done.stderr
