"""numba makes coding fast and changes nothing else."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from nec.coding import Tables, at_most_threads, decode, encode, scalar, streams, vectorized

# Run by another interpreter: encode and decode the message of `message`, print the streams.
CODE = """
import sys
{block}
import numpy as np
from nec.coding import Tables, decode, encode
symbols = np.random.default_rng(0).integers(-9, 10, (40, 90))
symbols[::7, ::11] *= 10**8
tables, contexts = Tables.from_laplace([0.3, 2.0, 9.0]), np.arange(90) % 3
streams = encode(symbols, tables, contexts)
assert (decode(streams, tables, contexts, 90) == symbols).all()
print(b"/".join(streams).hex(), "numba.core" in sys.modules)
"""


def run(code):
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout.split()


@pytest.mark.parametrize("each", [False, True], ids=["one row of contexts", "a row each"])
def test_numba_and_numpy_write_the_same_bytes(each):
    rng = np.random.default_rng(1)
    symbols = np.rint(rng.laplace(0, 2, (70, 300))).astype(np.int32)
    symbols[::7, ::11] = rng.integers(-(2**31), 2**31, (10, 28))
    tables, contexts = Tables.from_laplace(np.linspace(0.05, 4, 30)), np.arange(300) % 30
    if each:
        contexts = rng.integers(0, 30, (70, 300))
    coded = scalar.encode(symbols, tables, contexts)
    assert coded == vectorized.encode(symbols, tables, contexts)


def test_bytes_and_symbols_do_not_depend_on_threads(monkeypatch):
    symbols = np.rint(np.random.default_rng(1).laplace(0, 2, (200, 300))).astype(np.int32)
    tables, contexts = Tables.from_laplace([0.5, 1, 2]), np.arange(300) % 3
    monkeypatch.setattr(streams, "SYMBOLS_PER_THREAD", 1000)
    found = []
    for cores in (1, 2, 7):
        monkeypatch.setattr(streams, "_cores", lambda cores=cores: cores)
        coded = encode(symbols, tables, contexts)
        assert np.array_equal(decode(coded, tables, contexts, 300), symbols)
        found.append(coded)
    assert found[0] == found[1] == found[2]


def test_threads_are_as_few_as_asked_for_and_as_before_in_the_end(monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(streams, "_cores", lambda: 7)

    def others():
        found = streams._in_parts(scalar, lambda _: threading.get_ident(), (100, 1 << 20))
        return set(found) - {threading.get_ident()}

    with pytest.raises(KeyError), at_most_threads(1):
        assert not others()
        raise KeyError
    assert others()


def test_without_numba_the_bytes_are_the_same():
    pytest.importorskip("numba")
    plain, loaded = run(CODE.format(block="sys.modules['numba'] = None"))
    assert loaded == "False"
    symbols = np.random.default_rng(0).integers(-9, 10, (40, 90))
    symbols[::7, ::11] *= 10**8
    tables, contexts = Tables.from_laplace([0.3, 2.0, 9.0]), np.arange(90) % 3
    assert streams._coder(40) is scalar
    assert b"/".join(encode(symbols, tables, contexts)).hex() == plain


def test_numba_is_imported_at_the_first_use():
    pytest.importorskip("numba")
    code = "import sys, nec.coding as c\nprint('numba' in sys.modules)\n"
    code += "c.encode([[1]], c.Tables.from_laplace([1.0]), [0])\nprint('numba' in sys.modules)"
    assert run(code) == ["False", "True"]
