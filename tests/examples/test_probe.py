import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nec.store import EmbeddingStore
from nec.store.codec import RawCodec

PROBE = Path(__file__).parents[2] / "examples/probe.py"


def test_a_probe_without_torch_tells_classes_apart(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    values = rng.normal(size=(120, 8, 2, 2)) + 9 * np.eye(8)[labels][:, :, None, None]
    symbols = values.reshape(120, -1).astype("<f4").view("<i4")
    splits = np.repeat(["train", "val", "test"], 40)
    codec = RawCodec((8, 2, 2), "float32")
    with EmbeddingStore.create(tmp_path / "s", codec, {}, classes=["a", "b", "c"]) as store:
        store.append(symbols, [str(i) for i in range(120)], list(splits), labels)
    # Not sys.modules["torch"] = None: scipy takes any entry there for torch.
    code = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.argv = ["probe.py", {str(tmp_path / "s")!r}]
runpy.run_path({str(PROBE)!r}, run_name="__main__")
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "accuracy 100.0 %" in shown.stdout
    assert "40 test images of 3 classes" in shown.stdout
