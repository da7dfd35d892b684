import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nec.store import EmbeddingStore

PROVIDE = Path(__file__).parents[2] / "examples/provide.py"


def started(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROVIDE), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def run(*words: object) -> str:
    shown = started(*words)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


@pytest.fixture
def arrays(tmp_path: Path) -> dict[str, np.ndarray]:
    """Ninety embeddings, also in e.npz."""
    rng = np.random.default_rng(0)
    y = (
        rng.normal(size=(90, 5, 3, 3)).astype(np.float32)
        * np.array([9, 5, 2, 1, 0.1])[:, None, None]
    )
    arrays = {
        "y": (y + 3).astype(np.float32),
        "id": np.array([f"tile {i}" for i in range(90)]),
        "split": np.repeat(["train", "val", "test"], 30),
        "label": np.arange(90) % 4,
    }
    np.savez(tmp_path / "e.npz", **arrays)
    return arrays


def test_embeddings_of_any_model_make_a_store(
    tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    shown = run(tmp_path / "e.npz", tmp_path / "s.zarr", "--step", 0.5)
    assert shown.startswith("90 images, ")
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert store.complete
    # A uniform quantizer's error: step squared over 12.
    assert np.mean((store.read(range(90)) - arrays["y"]) ** 2) < 1.1 * 0.5**2 / 12
    again = run(tmp_path / "e.npz", tmp_path / "s.zarr", "--step", 0.5)
    assert again == shown  # there is nothing left to do


@pytest.mark.usefixtures("arrays")
def test_what_was_killed_before_its_first_append_begins_again(tmp_path: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / ".lock").touch()
    assert run(tmp_path / "e.npz", tmp_path / "s.zarr").startswith("90 images, ")


@pytest.mark.usefixtures("arrays")
def test_a_store_does_not_go_on_with_another_step(tmp_path: Path) -> None:
    run(tmp_path / "e.npz", tmp_path / "s.zarr", "--step", 0.5)
    shown = started(tmp_path / "e.npz", tmp_path / "s.zarr", "--step", 0.01)
    assert shown.returncode == 1
    assert "has step 0.5 and was to get 0.01, a store has one; give --step 0.5" in shown.stderr
    assert EmbeddingStore.open(tmp_path / "s.zarr").complete
