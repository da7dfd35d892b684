"""Dependencies point one way, and the base works without what only training needs."""

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import nec
from nec.cli import COMMANDS, main
from nec.store import EmbeddingStore
from nec.store.codec import RawCodec

SOURCE = Path(nec.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# Each layer may import itself and these.
MAY_IMPORT: dict[str, set[str]] = {
    "chance": set(),
    "scores": set(),
    "coding": set(),
    "store": {"coding"},
    "bottlenecks": {"chance", "coding", "store"},
    "checkpoints": {"weights"},
    "backbones": set(),
    "encoders": {"backbones", "checkpoints"},
    "adapters": {"encoders"},
    "distortions": {"chance"},
    "data": {"store"},
    "tasks": {"chance", "scores", "encoders", "adapters", "distortions", "bottlenecks"},
    "options": set(),
    "config": {"conf", "options"},
    "report": {"config", "scores"},
    "jobs": {
        *("coding", "store", "bottlenecks", "encoders", "adapters", "distortions", "data"),
        *("tasks", "report", "config", "conf", "weights", "checkpoints"),
        "cli",  # `python -m nec.jobs.run`, a job of a sweep, reports its errors as `nec run` does
    },
    "cli": set(),
    "weights": set(),
    "__init__": set(),
}
BASE = {
    "coding": {"numpy", "numba"},
    "store": {"numpy", "zarr", "google_crc32c", "numcodecs"},  # the last two come with zarr
    "cli": set(),
}
# Names that may be replaced one day, each in one layer (and where a job records its version).
REPLACEABLE = {
    "compressai": "bottlenecks",
    "faiss": "bottlenecks",
    "torchgeo": "data",
    "wandb": "jobs",
    "timm": None,
}


def layer_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    """Full dotted names of all imports, wherever in a module they stand."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively; write nec.{layer_of(path)}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def nec_layers(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported_names(path)]
    return {part[1] for part in parts if part[0] == "nec" and len(part) > 1}


def third_parties(path: Path) -> set[str]:
    roots = {name.split(".")[0] for name in imported_names(path)}
    return roots - set(sys.stdlib_module_names) - {"nec"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    layer = layer_of(path)
    assert layer in MAY_IMPORT, f"{layer} is in no layer; give it a row in MAY_IMPORT"
    assert nec_layers(path) <= MAY_IMPORT[layer] | {layer}


@pytest.mark.parametrize("layer", sorted(BASE))
def test_the_base_imports_numpy_and_zarr_alone(layer: str) -> None:
    for path in MODULES:
        if layer_of(path) == layer:
            assert third_parties(path) <= BASE[layer], path


@pytest.mark.parametrize(("package", "home"), REPLACEABLE.items())
def test_what_may_be_replaced_is_imported_by_few(package: str, home: str | None) -> None:
    layers = {layer_of(path) for path in MODULES if package in third_parties(path)}
    models = {"backbones", "checkpoints", "distortions", "tasks"}  # blocks are timm's everywhere
    assert layers <= ({home} if home else models)


def test_what_the_base_lacks_is_told_by_the_extra_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ModuleType("job")
    monkeypatch.setitem(sys.modules, "job", job)
    monkeypatch.setitem(COMMANDS, "run", "job")
    told = {"faiss"}  # by the bottleneck that needs it
    for name in set().union(*map(third_parties, MODULES)) - set().union(*BASE.values(), told):

        def import_it(argv: list[str], name: str = name) -> int:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        job.main = import_it
        assert main(["run"]) == 1
        assert capsys.readouterr().err == (
            f"nec: error: {name} is not installed; pip install 'nec[train]'\n"
        )


def test_what_all_tests_share_imports_nothing_that_only_training_needs() -> None:
    shared = ast.parse((Path(__file__).parent / "conftest.py").read_text())
    imports = [node for node in shared.body if isinstance(node, ast.Import | ast.ImportFrom)]
    allowed = ["import os", "import pytest", "from hypothesis import settings"]
    assert [ast.unparse(node) for node in imports] == allowed


def test_store_coding_and_inspect_work_without_what_training_needs(tmp_path: Path) -> None:
    with EmbeddingStore.create(
        tmp_path / "s", RawCodec((2, 1, 1), "float32"), {}, classes=["a"]
    ) as store:
        store.append(np.arange(6).reshape(3, 2), ["x", "y", "z"], ["test"] * 3, [0, 0, 0])
    absent = ("torch", "lightning", "compressai", "hydra", "omegaconf", "numba", "rich", "fsspec")
    code = (
        "import sys\n"
        f"for name in {absent}: sys.modules[name] = None\n"
        "import nec.coding, nec.store, nec.cli\n"
        f"sys.exit(nec.cli.main(['inspect', {str(tmp_path / 's')!r}, '--verify']))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "match their checksums" in shown.stdout
