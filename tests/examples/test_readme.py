import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_readmes_python_writes_a_store_and_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    y = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    names = {"y": y, "ids": list("abcd"), "splits": ["train"] * 4, "labels": [0, 1, 0, 1]}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    assert np.array_equal(names["y_hat"], y)
