"""Grids of symbols: what decodes is what was encoded, as short as the tables allow."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from tests.coding.conftest import without_numba_grids

from nec.coding import CorruptStreamError, Neighbours, Tables, decode_grids, encode_grids, streams

GOLDEN = Path(__file__).parents[1] / "golden"


def fields(rng, size, count=6, grid=(7, 9)):
    """Grids (N, h, w) of patches of equal symbols, with some noise."""
    coarse = rng.integers(0, size, (count, grid[0] // 3 + 1, grid[1] // 3 + 1))
    smooth = coarse.repeat(3, axis=1).repeat(3, axis=2)[:, : grid[0], : grid[1]]
    noise = rng.integers(0, size, smooth.shape)
    return np.where(rng.random(smooth.shape) < 0.1, noise, smooth)


def fitted(symbols, size, classes, power=1.0):
    """Neighbours counted on these grids."""
    counts = np.full((2, classes.max() + 2, size), 1e-2)
    border = classes.max() + 1
    left = np.pad(classes[symbols], ((0, 0), (0, 0), (1, 0)), constant_values=border)[:, :, :-1]
    up = np.pad(classes[symbols], ((0, 0), (1, 0), (0, 0)), constant_values=border)[:, :-1]
    np.add.at(counts[0], (left, symbols), 1)
    np.add.at(counts[1], (up, symbols), 1)
    return Neighbours.from_counts(*counts, classes, power)


@pytest.mark.parametrize("size", [1, 2, 5, 300])
def test_grids_round_trip_near_their_ideal_length(size):
    rng = np.random.default_rng(size)
    symbols = fields(rng, size)
    model = fitted(symbols, size, np.arange(size) // 2)
    coded = encode_grids(symbols, model)
    assert np.array_equal(decode_grids(coded, model, (7, 9)), symbols)
    ideal = model.code_length(symbols) / 8
    lengths = np.array([len(stream) for stream in coded])
    assert (lengths <= ideal + 1).all() and lengths.mean() < ideal.mean() + 0.6


def test_any_symbols_round_trip_under_any_tables():
    rng = np.random.default_rng(1)
    for _ in range(20):
        size, height, width = rng.integers(1, 40), rng.integers(1, 9), rng.integers(1, 9)
        classes = rng.integers(0, size, size)
        tables = [
            Tables.from_counts(rng.geometric(0.1, (size + 1, size)) - 1, np.zeros(size + 1, int))
            for _ in range(2)
        ]
        model = Neighbours(*tables, classes)
        symbols = rng.integers(0, size, (3, height, width))
        coded = encode_grids(symbols, model)
        assert np.array_equal(decode_grids(coded, model, (height, width)), symbols)


def test_code_length_is_the_entropy_of_the_product_of_tables():
    rng = np.random.default_rng(2)
    symbols = fields(rng, 6, count=2)
    classes = np.array([0, 1, 1, 2, 2, 2])
    model = fitted(symbols, 6, classes, power=0.8)
    left, up = (table.frequencies[:, :-1].astype(float) for table in (model.left, model.up))
    bits = np.zeros(2)
    for n, y, x in np.ndindex(symbols.shape):
        a = classes[symbols[n, y, x - 1]] if x else 3
        b = classes[symbols[n, y - 1, x]] if y else 3
        weights = left[a] * up[b]
        bits[n] -= np.log2(weights[symbols[n, y, x]] / weights.sum())
    np.testing.assert_allclose(model.code_length(symbols), bits, rtol=1e-4)


def test_neighbours_that_agree_cost_less_than_each_alone():
    rng = np.random.default_rng(3)
    symbols = fields(rng, 8, count=200, grid=(12, 12))
    model = fitted(symbols, 8, np.arange(8))
    apart = np.array(model.left.frequencies, dtype=float)[:, :-1]
    shares = np.bincount(symbols.ravel(), minlength=8) / symbols.size
    alone = Neighbours.from_counts(apart, np.tile(shares, (9, 1)), np.arange(8))
    assert model.code_length(symbols).sum() < 0.9 * alone.code_length(symbols).sum()


def test_bytes_do_not_depend_on_numba_or_threads(monkeypatch):
    rng = np.random.default_rng(4)
    symbols = fields(rng, 30, count=9)
    model = fitted(symbols, 30, np.arange(30) // 2)
    found = [encode_grids(symbols, model)]
    monkeypatch.setattr(streams, "SYMBOLS_PER_THREAD", 100)
    monkeypatch.setattr(streams, "_cores", lambda: 3)
    found.append(encode_grids(symbols, model))
    assert np.array_equal(decode_grids(found[1], model, (7, 9)), symbols)
    monkeypatch.setattr(streams, "_grids", without_numba_grids)
    found.append(encode_grids(symbols, model))
    assert np.array_equal(decode_grids(found[2], model, (7, 9)), symbols)
    assert found[0] == found[1] == found[2]


def test_plain_bytes_restore_neighbours_and_damage_is_named():
    rng = np.random.default_rng(5)
    symbols = fields(rng, 5)
    model = fitted(symbols, 5, np.array([0, 0, 1, 2, 2]))
    again = Neighbours.from_plain(model.plain)
    assert again.plain == model.plain
    assert encode_grids(symbols, again) == encode_grids(symbols, model)
    for cut in (0, 5, len(model.left.plain), len(model.plain) - 1):
        with pytest.raises(CorruptStreamError):
            Neighbours.from_plain(model.plain[:cut])
    with pytest.raises(CorruptStreamError, match="classes reach"):
        Neighbours.from_plain(model.plain[:-2] + b"\xff\xff")


def test_what_is_no_stream_of_these_tables_is_refused_or_reads_as_other_symbols():
    rng = np.random.default_rng(6)
    symbols = fields(rng, 5, count=1)
    model = fitted(symbols, 5, np.arange(5))
    (stream,) = encode_grids(symbols, model)
    with pytest.raises(CorruptStreamError):
        decode_grids([stream + b"\x01\x02\x03\x04\x05\x06\x07\x08"], model, (7, 9))
    for length in rng.integers(0, 30, 200):
        try:
            found = decode_grids([rng.bytes(length)], model, (7, 9))
        except CorruptStreamError:
            continue
        assert 0 <= found.min() <= found.max() < 5


def test_wrong_symbols_and_tables_are_named():
    symbols = fields(np.random.default_rng(7), 5)
    model = fitted(symbols, 5, np.arange(5))
    with pytest.raises(ValueError, match="reach from 0 to 5"):
        encode_grids(np.full((1, 2, 2), 5) * np.array([[0, 1], [1, 1]]), model)
    with pytest.raises(ValueError, match="classes reach"):
        Neighbours(model.left, model.up, np.arange(1, 6))
    with pytest.raises(ValueError, match="offset"):
        Neighbours(Tables(model.left.frequencies, np.ones(6, int)), model.up, np.arange(5))
    with pytest.raises(ValueError, match="a context for each class"):
        Neighbours(model.left, model.up, np.arange(4))


def test_format_1_of_grids_is_frozen(request):
    symbols = fields(np.random.default_rng(8), 12, count=1)
    model = fitted(symbols, 12, np.arange(12) // 2)
    (stream,) = encode_grids(symbols, model)
    golden = GOLDEN / "grid_format_1.bin"
    content = hashlib.sha256(model.plain).digest() + stream
    if request.config.getoption("--refresh-golden"):
        golden.write_bytes(content)
    assert content == golden.read_bytes()
