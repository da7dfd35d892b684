"""Bjøntegaard deltas with pencil answers, and words where there is none."""

import math

import pytest

from nec.jobs.deltas import Delta, deltas
from nec.jobs.table import COLUMNS, TableRow

SIZES = (100.0, 200.0, 400.0, 800.0)
ACCURACIES = (0.80, 0.88, 0.92, 0.94)


def curve(name: str, sizes=SIZES, accuracies=ACCURACIES, learned: int = 0) -> list[TableRow]:
    blank = TableRow(name, "", "linear", learned, 1, 1, *[math.nan] * (len(COLUMNS) - 6))
    return [
        blank._replace(setting=f"λ={size:g}", bytes_per_image=size, accuracy=accuracy)
        for size, accuracy in zip(sizes, accuracies, strict=True)
    ]


def between(anchor: list[TableRow], other: list[TableRow]) -> dict[str, Delta]:
    return {delta.metric: delta for delta in deltas(anchor + other, anchor[0].variant)}


def test_curve_is_nothing_away_from_itself() -> None:
    found = between(curve("a"), curve("b"))
    assert found["bd_rate"].value == pytest.approx(0, abs=1e-9)
    assert found["bd_utility"].value == pytest.approx(0, abs=1e-12)


def test_twice_the_bytes_are_a_rate_of_plus_one_hundred_percent() -> None:
    found = between(curve("a"), curve("b", [2 * size for size in SIZES]))
    assert found["bd_rate"].value == pytest.approx(100)
    assert (found["bd_rate"].overlap_low, found["bd_rate"].overlap_high) == (0.80, 0.94)
    assert found["bd_utility"].value < 0


def test_two_points_more_everywhere_are_a_utility_of_two_points() -> None:
    found = between(curve("a"), curve("b", accuracies=[a + 0.02 for a in ACCURACIES]))
    assert found["bd_utility"].value == pytest.approx(0.02)
    assert found["bd_utility"].overlap_low == pytest.approx(100)
    assert found["bd_rate"].value < 0


def test_curves_apart_say_so_instead_of_a_number() -> None:
    found = between(curve("a"), curve("b", [100 * size for size in SIZES]))
    assert math.isnan(found["bd_utility"].value)
    assert found["bd_utility"].note == "no overlap in bytes"
    assert found["bd_rate"].value == pytest.approx(9900)


def test_two_points_are_no_curve_and_one_is_not_mentioned() -> None:
    short = curve("short", SIZES[:2], ACCURACIES[:2])
    assert "short has 2 points" in between(curve("a"), short)["bd_rate"].note
    assert deltas(curve("a") + curve("int8", SIZES[:1], ACCURACIES[:1])) == []


def test_curve_that_falls_has_a_utility_but_no_rate() -> None:
    found = between(curve("a"), curve("b", accuracies=(0.80, 0.88, 0.87, 0.94)))
    assert found["bd_rate"].note == "accuracy of b does not rise from λ=200 to λ=400"
    assert -0.05 < found["bd_utility"].value < 0


def test_overlap_of_two_end_points_is_too_little() -> None:
    found = between(curve("a"), curve("b", [700.0, 1400.0, 2800.0, 5600.0]))
    assert "only its two ends" in found["bd_utility"].note


def test_training_free_curves_are_the_baselines() -> None:
    table = curve("learned", learned=1) + curve("pooled") + curve("uniform")
    pairs = {(delta.baseline, delta.variant) for delta in deltas(table)}
    assert {baseline for baseline, _ in pairs} == {"pooled", "uniform"}
    assert ("pooled", "learned") in pairs and ("pooled", "pooled") not in pairs


def test_unknown_baseline_is_an_error_that_names_the_curves() -> None:
    with pytest.raises(ValueError, match=r"'poled' is no curve.*: pooled"):
        deltas(curve("pooled"), "poled")
