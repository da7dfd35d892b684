"""Counted tables: what train shows, and what it does not."""

import numpy as np
import pytest

from nec.bottlenecks.base import LARGEST_COUNTED, counted_tables

ZEROS = np.zeros(1, np.int64)


def test_tables_do_not_depend_on_how_many_images_are_counted_at_a_time():
    generator = np.random.default_rng(0)
    symbols = generator.geometric(0.3, (135, 30)).astype(np.int32) - 4
    contexts = np.arange(30, dtype=np.int32) // 6
    ends = symbols.min(), symbols.max()
    whole = counted_tables([(symbols, contexts)], 5, *ends)
    parts = [(part, contexts) for part in np.array_split(symbols, 4)]
    assert counted_tables(parts, 5, *ends).sha256 == whole.sha256


def test_what_train_shows_often_costs_its_entropy():
    symbols = np.tile(np.array([0, 1, 1, 1], np.int32), 1000).reshape(-1, 1)
    bits = counted_tables([(symbols, ZEROS)], 1, 0, 1).code_length(symbols, ZEROS)
    assert abs(np.mean(bits) - 0.8113) < 0.002


@pytest.mark.parametrize("far", [10**9, -(10**9), -(2**31)])
def test_one_symbol_far_away_makes_no_table_as_wide(far):
    symbols = np.array([*[0, 1] * 500, far], np.int32)[:, None]
    tables = counted_tables([(symbols, ZEROS)], 1, symbols.min(), symbols.max())
    assert tables.frequencies.shape[1] <= LARGEST_COUNTED + 3
    bits = tables.code_length(symbols, ZEROS)
    assert bits[:1000].mean() < 1.2 and bits[1000] < 100  # as an escape


def test_symbols_that_all_lie_far_away_are_escapes():
    symbols = np.full((100, 1), 10**6, np.int32)
    tables = counted_tables([(symbols, ZEROS)], 1, 10**6, 10**6)
    assert np.isfinite(tables.code_length(symbols, ZEROS)).all()
