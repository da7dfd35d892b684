import subprocess
import sys
from pathlib import Path

import numpy as np

from nec.store import EmbeddingStore

PROVIDE = Path(__file__).parents[2] / "examples/provide.py"


def run(*words: object) -> str:
    command = [sys.executable, str(PROVIDE), *map(str, words)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def test_embeddings_of_any_model_make_a_store(tmp_path: Path) -> None:
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
    shown = run(tmp_path / "e.npz", tmp_path / "s.zarr", "--step", 0.5)
    assert shown.startswith("90 images, ")
    store = EmbeddingStore.open(tmp_path / "s.zarr")
    assert store.complete
    # A uniform quantizer's error: step squared over 12.
    assert np.mean((store.read(range(90)) - arrays["y"]) ** 2) < 1.1 * 0.5**2 / 12
    assert run(tmp_path / "e.npz", tmp_path / "s.zarr") == shown  # there is nothing left to do
