"""The three paths of the coder, each in force for one test."""

import importlib
import importlib.util
import sys

import pytest

from nec.coding import scalar, streams, vectorized


def without_numba():
    """The module `scalar` as Python runs it where numba is not installed."""
    spec = importlib.util.find_spec("nec.coding.scalar")
    module = importlib.util.module_from_spec(spec)
    numba, sys.modules["numba"] = sys.modules.get("numba"), None
    spec.loader.exec_module(module)
    sys.modules["numba"] = numba
    return module


def without_numba_grids():
    """The module `grids`, likewise."""
    names = ("nec.coding.scalar", "nec.coding.grids")
    kept = {name: sys.modules.pop(name, None) for name in names}
    numba, sys.modules["numba"] = sys.modules.get("numba"), None
    try:
        return importlib.import_module("nec.coding.grids")
    finally:
        sys.modules["numba"] = numba
        sys.modules.update({name: module for name, module in kept.items() if module})


PATHS = {"numba": scalar, "python": without_numba(), "numpy": vectorized}


@pytest.fixture(params=PATHS)
def coder(request, monkeypatch):
    monkeypatch.setattr(streams, "_coder", lambda images: PATHS[request.param])
    return PATHS[request.param]
