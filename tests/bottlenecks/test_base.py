import numpy as np

from nec.bottlenecks.base import SUMMED_IMAGES, counted_tables


def test_tables_do_not_depend_on_how_many_images_are_counted_at_a_time(monkeypatch):
    generator = np.random.default_rng(0)
    symbols = generator.geometric(0.3, (2 * SUMMED_IMAGES + 7, 30)).astype(np.int32) - 4
    contexts = np.arange(30, dtype=np.int32) // 6
    blocks = counted_tables(symbols, contexts)
    monkeypatch.setattr("nec.bottlenecks.base.SUMMED_IMAGES", len(symbols))
    assert counted_tables(symbols, contexts).sha256 == blocks.sha256


def test_what_train_shows_often_costs_its_entropy():
    symbols = np.tile(np.array([0, 1, 1, 1], np.int32), 1000).reshape(-1, 1)
    bits = counted_tables(symbols, np.zeros(1, np.int64)).code_length(symbols, np.zeros(1, int))
    assert abs(np.mean(bits) - 0.8113) < 0.002
