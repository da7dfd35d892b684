"""The three paths of the coder, each in force for one test."""

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


PATHS = {"numba": scalar, "python": without_numba(), "numpy": vectorized}


@pytest.fixture(params=PATHS)
def coder(request, monkeypatch):
    monkeypatch.setattr(streams, "_coder", lambda images: PATHS[request.param])
    return PATHS[request.param]
