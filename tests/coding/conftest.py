"""Both paths of the coder, each in force for one test."""

import pytest

from nec.coding import compiled, rans, vectorized


@pytest.fixture(params=[compiled, vectorized], ids=["numba", "numpy"])
def coder(request, monkeypatch):
    monkeypatch.setattr(rans, "_coder", lambda: request.param)
    return request.param
