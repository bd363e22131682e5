"""Nothing that is shipped runs code that came with data: no pickles, no remote code, no eval."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nemodiff_core", "nemodiff_cli", "kernels", "ui")
BARE = {"eval", "exec", "compile", "__import__"}
DOTTED = {
    "torch.load", "torch.jit.load", "torch.hub.load", "numpy.load", "np.load", "pandas.read_pickle", "pd.read_pickle", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "shelve.open", "os.system", "os.popen",
}  # fmt: skip
MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
WORDS = {"trust_remote_code", "allow_pickle", "shell"}
# Where one of them stands all the same, and why it is harmless.
ALLOWED = {
    ("nemodiff_core/serving/manifest.py", "yaml.load"): "with SafeLoader or its twin in C, which make plain data only",
    ("nemodiff_core/training/train.py", "torch.load"): "the trainer's own state, read with weights_only=True from the folder it wrote",
}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in BARE or name in DOTTED:
                yield name
            for keyword in node.keywords:
                if keyword.arg in WORDS and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False):
                    yield keyword.arg
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield node.module


def test_shipped_code_never_runs_what_came_with_data():
    found = set()
    for path in [ROOT / "app.py", *(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))]:
        for danger in dangers(ast.parse(path.read_text("utf-8"))):
            found.add((path.relative_to(ROOT).as_posix(), danger))
    assert found == set(ALLOWED), "new: give the reason in ALLOWED; gone: take it out"


def test_the_one_torch_load_reads_weights_only():
    tree = ast.parse((ROOT / "nemodiff_core/training/train.py").read_text("utf-8"))
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and dotted(node.func) == "torch.load"]
    assert any(k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in call.keywords)


def test_the_one_yaml_load_is_a_safe_one():
    import yaml

    from nemodiff_core.serving import manifest

    assert manifest._LOADER in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", None))


@pytest.mark.parametrize("code", ["eval('1')", "import pickle", "from dill import loads", "torch.load(f)", "f(trust_remote_code=True)", "f(shell=yes)", "np.load(f, allow_pickle=True)"])
def test_the_search_finds_what_it_looks_for(code: str):
    assert list(dangers(ast.parse(code)))
