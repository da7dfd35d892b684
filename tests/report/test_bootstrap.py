"""Intervals: means, pairing, degenerate cases."""

from functools import partial

import numpy as np
import pytest

from nec.report.bootstrap import Compared, Drawn, Interval, Trial, compare, tail_of
from nec.report.kinds import KINDS


def trial(point: str, share: float, n: int = 200, heads: int = 5, split: str = "0", seed: int = 0):
    generator = np.random.default_rng([int(1000 * share), n, int(split), seed])
    ids = np.array([f"{split}/{number}" for number in range(n)])
    return of_right(point, split, seed, generator.random((heads, n)) < share, ids)


def of_right(point: str, split: str, seed: int, right: np.ndarray, ids: np.ndarray) -> Trial:
    statistics = np.stack([right, np.ones_like(right)], axis=2).astype(np.int64)
    return Trial(point, split, seed, statistics, ids, ids, np.zeros(len(ids), np.int64), 100.0)


def right(one: Trial) -> np.ndarray:
    return one.statistics[:, :, 0] > 0


def compared(trials: list[Trial], raws: dict[str, str]) -> dict[str, Compared]:
    return {point: one.metrics["accuracy"] for point, one in drawn(trials, raws).items()}


def drawn(trials: list[Trial], raws: dict[str, str]) -> dict[str, Drawn]:
    return compare(trials, raws, partial(KINDS["classification"].measure, classes=[]))


def utilities(trials: list[Trial], raw: str) -> dict[str, Compared]:
    return compared(trials, {trial.point: raw for trial in trials})


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_interval_holds_the_mean_of_all_heads() -> None:
    one = trial("a", 0.9)
    accuracy = utilities([one], raw="raw")["a"].interval
    assert accuracy.value == pytest.approx(right(one).mean(), abs=1e-12)
    assert accuracy.low < accuracy.value < accuracy.high


def test_all_right_is_one_with_an_interval_of_no_width() -> None:
    one = trial("a", 1.0)
    assert utilities([one], raw="a")["a"].interval == (1.0, 1.0, 1.0)


def test_a_single_group_says_nothing_of_others() -> None:
    one = trial("a", 1.0, heads=3)
    for lone in (trial("a", 1.0, n=1, heads=1), one._replace(groups=np.full(200, "tile"))):
        value, low, high = utilities([lone], raw="raw")["a"].interval
        assert value == 1 and np.isnan([low, high]).all()


def test_interval_of_one_head_has_the_width_of_a_binomial() -> None:
    accuracy = utilities([trial("a", 0.8, n=1000, heads=1)], raw="raw")["a"].interval
    spread = np.sqrt(accuracy.value * (1 - accuracy.value) / 1000)
    assert accuracy.high - accuracy.low == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_interval_shrinks_with_more_images() -> None:
    widths = [
        interval.high - interval.low
        for n in (50, 500, 5000)
        for interval in [utilities([trial("a", 0.8, n=n)], raw="raw")["a"].interval]
    ]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_interval_shrinks_with_more_splits_of_other_images() -> None:
    one = utilities([trial("a", 0.8)], raw="raw")["a"].interval
    many = utilities([trial("a", 0.8, split=str(k)) for k in range(5)], raw="raw")["a"].interval
    assert width(many) < 0.7 * width(one)


def test_same_images_in_five_splits_are_no_surer_than_in_one() -> None:
    one = trial("a", 0.8, n=400, heads=1)
    splits = [one._replace(split=str(number)) for number in range(5)]
    alone = utilities([one], raw="raw")["a"].interval
    assert utilities(splits, raw="raw")["a"].interval == pytest.approx(alone, abs=1e-12)


def test_splits_that_overlap_by_half_are_as_sure_as_the_images_they_hold() -> None:
    answers = np.random.default_rng(0).random(1500) < 0.8
    ids = np.array([str(number) for number in range(1500)])
    parts = (slice(0, 1000), slice(500, 1500))
    splits = [of_right("a", str(k), 0, answers[None, p], ids[p]) for k, p in enumerate(parts)]
    found = width(utilities(splits, raw="raw")["a"].interval)
    # The middle images weigh 2/2000 each, the outer ones 1/2000.
    spread = np.sqrt(0.8 * 0.2 * (500 * 2**2 + 1000)) / 2000
    assert found == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_splits_of_one_image_each_do_not_fail() -> None:
    splits = [trial("a", 1.0, n=1, heads=1, split=str(number)) for number in range(3)]
    assert utilities(splits, raw="raw")["a"].interval == (1.0, 1.0, 1.0)


def test_point_that_has_no_raw_has_no_difference() -> None:
    found = compared([trial("raw", 0.9), trial("a", 0.8)], {"raw": "raw"})
    assert found["a"].difference is None and found["raw"].difference == (0.0, 0.0, 0.0)


def test_difference_of_a_run_with_itself_is_exactly_zero() -> None:
    trials = [trial("raw", 0.83, split=split, seed=seed) for split in "01" for seed in range(2)]
    twin = [one._replace(point="twin") for one in trials]
    found = utilities(trials + twin, raw="raw")
    assert found["raw"].difference == found["twin"].difference == (0.0, 0.0, 0.0)


def test_pairing_makes_a_difference_surer_than_its_parts() -> None:
    raw = trial("raw", 0.8)
    worse = of_right("worse", "0", 0, right(raw) & (np.arange(200) % 40 > 0), raw.ids)
    found = utilities([raw, worse], raw="raw")["worse"]
    assert found.difference.value < 0
    part = found.interval.high - found.interval.low
    assert found.difference.high - found.difference.low < 0.8 * part


def test_images_are_matched_by_id_not_by_place() -> None:
    raw = trial("raw", 0.8)
    order = np.random.default_rng(0).permutation(200)
    moved = of_right("moved", "0", 0, right(raw)[:, order], raw.ids[order])
    assert utilities([raw, moved], raw="raw")["moved"].difference == (0.0, 0.0, 0.0)


def test_difference_needs_a_split_that_raw_has_too() -> None:
    trials = [trial("raw", 0.9, split="0"), trial("a", 0.8, split="1")]
    assert utilities(trials, raw="raw")["a"].difference is None


def test_runs_on_other_images_are_not_compared() -> None:
    other = trial("b", 0.8)
    with pytest.raises(ValueError, match="different images"):
        utilities([trial("a", 0.8), other._replace(ids=np.char.add(other.ids, "x"))], raw="a")


def test_intervals_are_the_same_every_time() -> None:
    trials = [trial("a", 0.8), trial("raw", 0.9)]
    first, again = (utilities(trials, raw="raw")["a"] for _ in range(2))
    assert first[:2] == again[:2]
    assert np.array_equal(first.differences, again.differences)
    low, high = np.quantile(first.differences, [tail_of(200), 1 - tail_of(200)])
    assert (low, high) == first.difference[1:]


def test_tails_are_those_of_many_or_of_students_t() -> None:
    assert tail_of(10**6) == pytest.approx(0.025, rel=1e-4)
    assert [tail_of(n) for n in (3, 8, 30)] == sorted(tail_of(n) for n in (3, 8, 30))


def test_intervals_of_few_groups_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    held = []
    for _ in range(150):  # eight tiles of 400 images each, of which some share is right
        shares = generator.normal(0.5, 0.05, 8)
        tiles = [trial("a", share, n=400, heads=1, split=str(k)) for k, share in enumerate(shares)]
        alike = [one._replace(groups=np.full(400, one.split)) for one in tiles]
        interval = compared(alike, {})["a"].interval
        held.append(interval.low <= 0.5 <= interval.high)
    assert 0.90 <= np.mean(held) <= 0.99  # plain percentiles: 0.83


def test_bytes_are_drawn_with_the_images_they_are_of() -> None:
    small, large = trial("a", 0.9, n=10, split="0"), trial("a", 0.9, n=30, split="1")
    tiles = [
        one._replace(groups=np.full(len(one.ids), one.split), bytes_per_image=size)
        for one, size in ((small, 100.0), (large, 300.0))
    ]
    # One of them twice, or both: 10 images of 100 bytes beside 30 of 300.
    assert set(drawn(tiles, {})["a"].sizes) == {100.0, 250.0, 300.0}
    apart = drawn([one._replace(bytes_per_image=100.0) for one in (small, large)], {})["a"]
    assert apart.sizes == pytest.approx(np.full(2000, 100.0))


def test_the_difference_on_a_split_is_that_of_its_images() -> None:
    raw = [trial("raw", 0.9, split=split) for split in "01"]
    ours = [trial("a", 0.8, split=split) for split in "01"]
    found = utilities([*raw, *ours], raw="raw")["a"].of_splits
    for one, other in zip(ours, raw, strict=True):
        assert found[one.split] == pytest.approx(right(one).mean() - right(other).mean())


def test_other_labels_of_the_same_images_are_not_paired() -> None:
    raw, codec = trial("raw", 0.9), trial("codec", 0.8)
    relabelled = codec._replace(truth=np.ones(200, np.int64))
    with pytest.raises(ValueError, match="different images, or other labels, of split '0'"):
        drawn([raw, relabelled], {})
