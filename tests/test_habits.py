"""What every source file of the repository keeps to, found by walking the syntax trees; and that each check can fail.

Generated code is exempt. A test that has to carry a forbidden thing, to show that it is refused, is named in
`ATTACKS` with its reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedpriv", "workers", "coordinator")
FOLDERS = (*PACKAGES, "tests", "examples", "benchmarks")
GENERATED = ROOT / "fedpriv" / "wire" / "v1"
DOOR = ROOT / "workers" / "fedpriv_worker" / "release.py"
ATTACKS: dict[str, str] = {}

FILE_LINES, FUNCTION_LINES, CLASS_METHODS = 400, 45, 15

UNPICKLERS = frozenset({"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle", "joblib"})
LOADERS = frozenset(
    {"torch.load", "torch.jit.load", "torch.export.load", "torch.hub.load", "torch.package.PackageImporter"}
)
BUILTINS = frozenset({"exec", "eval", "compile", "__import__"})
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")))


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")) if GENERATED not in path.parents)


def imported(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield line, local name and full name of everything that is imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name.split(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield node.lineno, alias.asname or alias.name, f"{node.module}.{alias.name}"


def dotted(node: ast.expr) -> str:
    """Return "a.b.c" for a chain of attributes on a name, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (left := dotted(node.value)):
        return f"{left}.{node.attr}"
    return ""


def full_name(node: ast.expr, names: dict[str, str]) -> str:
    """Return the dotted name of `node` with its first part replaced by what that was imported as."""
    first, dot, rest = dotted(node).partition(".")
    return names.get(first, first) + dot + rest


def dangers(source: str) -> list[str]:
    """Return what in `source` could run or rebuild code that came as bytes."""
    tree = ast.parse(source)
    found = [f"{line}: import of {name}" for line, _, name in imported(tree) if name.split(".")[0] in UNPICKLERS]
    found += [f"{line}: import of {name}" for line, _, name in imported(tree) if name in LOADERS]
    names = {local: name for _, local, name in imported(tree)}
    names |= {local: local for _, local, name in imported(tree) if name.split(".")[0] == local}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and full_name(node, names) in LOADERS:
            found.append(f"{node.lineno}: {full_name(node, names)}")
        elif isinstance(node, ast.Name) and node.id in BUILTINS and isinstance(node.ctx, ast.Load):
            found.append(f"{node.lineno}: {node.id}")
        elif isinstance(node, ast.Call):
            found += [f"{node.lineno}: {name}" for name in _careless(node, full_name(node.func, names))]
    return found


def _careless(call: ast.Call, name: str) -> Iterator[str]:
    """Yield the name of a call whose arguments would let it unpickle, or load any object as YAML."""
    options = {option.arg: option.value for option in call.keywords}
    allow = options.get("allow_pickle")
    if name in {"numpy.load", "np.load"} and not (isinstance(allow, ast.Constant) and allow.value is False):
        yield "numpy.load without allow_pickle=False"
    if name.endswith(".read_pickle") or name in {"yaml.load", "yaml.unsafe_load"}:
        yield name


def seals(source: str) -> list[int]:
    """Return the lines of `source` that make a `Sealed`, or make one from another."""
    tree = ast.parse(source)
    aliases = {"Sealed"} | {local for _, local, name in imported(tree) if name.split(".")[-1] == "Sealed"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if dotted(call.func).split(".")[-1] in aliases
        or any(dotted(argument) in aliases for argument in call.args if dotted(call.func).endswith("__new__"))
    ]


def oversized(source: str) -> list[str]:
    """Return what in `source` is longer than the house allows, with its measure."""
    tree = ast.parse(source)
    lines = len(source.splitlines())
    found = [f"file has {lines} lines, {FILE_LINES} at most"] if lines > FILE_LINES else []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                found.append(f"{node.name} has {length} lines, {FUNCTION_LINES} at most")
        elif isinstance(node, ast.ClassDef):
            methods = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
            if methods > CLASS_METHODS and not node.name.startswith("Test"):
                found.append(f"class {node.name} has {methods} methods, {CLASS_METHODS} at most")
    return found


def failures(check, paths) -> list[str]:
    found = []
    for path in paths:
        name = str(path.relative_to(ROOT))
        found += [f"{name}: {each}" for each in check(path.read_text(encoding="utf-8")) if name not in ATTACKS]
    return found


def test_there_are_sources_to_walk():
    assert len(list(sources(*PACKAGES))) > 20


def test_nothing_unpickles_executes_or_loads_code():
    assert failures(dangers, sources(*FOLDERS)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as harmless",
        "from pickle import loads",
        "def f():\n    import cloudpickle",
        "import dill",
        "import marshal",
        "import shelve",
        "import joblib.numpy_pickle",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x')",
        "import torch\nread = torch.jit.load",
        "from torch import load",
        "from torch import jit\njit.load('x')",
        "from torch import export as e\ne.load('x')",
        "import torch.export\ntorch.export.load('x')",
        "import torch.jit as j\nj.load('x')",
        "from torch.export import load as innocent",
        "eval('1')",
        "run = exec",
        "__import__('os')",
        "compile('1', 'x', 'eval')",
        "import numpy as np\nnp.load('x')",
        "import numpy\nnumpy.load('x', allow_pickle=True)",
        "import numpy as anything\nanything.load('x', allow_pickle=flag)",
        "from numpy import load\nload('x')",
        "import pandas as pd\npd.read_pickle('x')",
        "import yaml\nyaml.load('x')",
    ],
)
def test_dangerous_code_is_found(source):
    assert dangers(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('x')",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import json\njson.load(file)",
        "from safetensors.torch import load_file\nload_file('x')",
        "from torch import export\nexport.save",
        "'pickle'  # as a word only",
        "torch.compile(model)",
    ],
)
def test_ordinary_code_is_not_taken_for_dangerous(source):
    assert dangers(source) == []


def test_only_the_door_seals():
    assert failures(seals, (path for path in sources(*PACKAGES) if path != DOOR)) == []


def test_the_door_seals():
    assert DOOR.exists()
    assert seals(DOOR.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "from fedpriv.sealed import Sealed\nSealed(x)",
        "import fedpriv.sealed as s\ns.Sealed(envelope=x)",
        "from fedpriv.sealed import Sealed as Ordinary\nOrdinary(x)",
        "from fedpriv.sealed import Sealed\nobject.__new__(Sealed)",
    ],
)
def test_a_second_door_is_found(source):
    assert seals(source)


def test_naming_the_type_is_not_sealing():
    assert seals("from fedpriv.sealed import Sealed\ndef f(x: Sealed) -> bool:\n    return isinstance(x, Sealed)") == []


def test_files_functions_and_classes_are_of_a_size_to_read():
    assert failures(oversized, sources(*FOLDERS)) == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\n" * 401, "file has 401 lines"),
        ("def long():\n" + "    x = 1\n" * 45, "long has 46 lines"),
        ("class A:\n    async def long(self):\n" + "        x = 1\n" * 45, "long has 46 lines"),
        ("class A:\n" + "".join(f"    def m{at}(self): ...\n" for at in range(16)), "class A has 16 methods"),
    ],
)
def test_what_is_too_large_is_named_with_its_measure(source, says):
    assert any(each.startswith(says) for each in oversized(source))


def test_what_is_just_small_enough_passes():
    assert oversized("x = 1\n" * 400) == []
    assert oversized("def f():\n" + "    x = 1\n" * 44) == []


def unfinished(text: str) -> list[str]:
    """Return each line of `text` that promises work instead of doing it."""
    return [f"{at}: {line.strip()}" for at, line in enumerate(text.splitlines(), start=1) if UNFINISHED.search(line)]


def written_files() -> Iterator[Path]:
    yield from sources(*FOLDERS)
    for pattern in ("*.md", "Makefile", "pyproject.toml", ".ci/run", "proto/**/*.proto", "docs/**/*.md"):
        yield from sorted(ROOT.glob(pattern))


def test_nothing_is_left_for_later():
    assert failures(unfinished, written_files()) == []


def test_what_is_left_for_later_is_found():
    assert unfinished("x = 1\n# " + "TO" + "DO: more\n") == ["2: # " + "TO" + "DO: more"]


BLOCKED = """
import importlib, sys

for name in {blocked!r}:
    sys.modules[name] = None  # as Python marks a module that is not there

for name in {names!r}:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        getattr(module, public)
"""
EXTRAS = {"PIL", "pyarrow", "pandas", "sklearn", "matplotlib", "dp_accounting", "grpc_tools", "pytest", "hypothesis"}


def module_names() -> list[str]:
    """Return every module of the three packages except generated ones."""
    found = []
    for root in (ROOT, ROOT / "workers", ROOT / "coordinator"):
        for path in sorted(root.glob("fedpriv*/**/*.py")):
            if GENERATED not in path.parents:
                parts = path.relative_to(root).with_suffix("").parts
                found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def imports(names, blocked) -> subprocess.CompletedProcess[str]:
    program = BLOCKED.format(blocked=blocked, names=names)
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_every_module_imports_with_the_core_dependencies_alone():
    finished = imports(module_names(), EXTRAS)
    assert finished.returncode == 0, finished.stderr


def test_the_packages_import_with_the_core_dependencies_alone():
    finished = imports(["fedpriv", "fedpriv_worker", "fedpriv_coordinator"], EXTRAS)
    assert finished.returncode == 0, finished.stderr


def test_an_import_of_an_extra_is_found():
    assert "import of sqlite3 halted" in imports(["fedpriv.storage.database"], {"sqlite3"}).stderr


def blocks(language: str) -> list[str]:
    """Return the code blocks of README.md that are written in `language`."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)


def test_the_job_in_the_readme_is_one_that_loads(tmp_path):
    from fedpriv_coordinator.config import load_job

    (job,) = (block for block in blocks("toml") if "[workers]" in block)
    (tmp_path / "job.toml").write_text(job)
    assert load_job(tmp_path / "job.toml").name == "tumours"


def test_the_data_set_in_the_readme_is_one_that_loads(tmp_path):
    from fedpriv_worker.config import load_config
    from fedpriv_worker.template import write_template

    (dataset,) = (block for block in blocks("toml") if "[[dataset]]" in block)
    path = write_template(tmp_path, "st-elsewhere")
    path.write_text(f"{path.read_text()}\n{dataset}")
    (loaded,) = load_config(path).datasets
    assert [rule.name for rule in loaded.release] == ["plain-update", "metrics"]


@pytest.mark.slow
def test_the_python_in_the_readme_runs(tmp_path):
    for block in blocks("python"):
        command = [sys.executable, "-c", block]
        finished = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=tmp_path)
        assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "runs" / "first" / "report.html").exists()


def test_the_pages_name_only_files_that_are_there():
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for name in re.findall(
            r"`((?:tests|workers|coordinator|docs|proto)/[\w./-]+)`", page.read_text(encoding="utf-8")
        ):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
