"""Bjøntegaard deltas with pencil answers, and words where there is none."""

import math

import numpy as np
import pytest
from rich.console import Console
from scipy.interpolate import PchipInterpolator

from nec.report.deltas import Delta, deltas
from nec.report.render import delta_table
from nec.report.table import BEST_PIXELS, COLUMNS, TableRow

SIZES = (100.0, 200.0, 400.0, 800.0)
ACCURACIES = (0.80, 0.88, 0.92, 0.94)
Point = tuple[float, float]


def curve(name: str, sizes=SIZES, accuracies=ACCURACIES, learned: int = 0) -> list[TableRow]:
    blank = TableRow(
        name, "", "linear", learned, 0, 1, "0", *[math.nan] * (len(COLUMNS) - 9), {}, {}
    )
    return [
        blank._replace(
            setting=f"λ={size:g}", payload_bytes_per_image=size, metric="accuracy", value=accuracy
        )
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


def oracle(anchor: list[Point], other: list[Point]) -> float:
    """Mean of scipy's own PCHIP differences, summed on a fine grid."""
    low = max(anchor[0][0], other[0][0])
    high = min(anchor[-1][0], other[-1][0])
    x = low + (high - low) * (np.arange(100_000) + 0.5) / 100_000
    first, second = (PchipInterpolator(*zip(*points, strict=True)) for points in (anchor, other))
    return float(np.mean(second(x) - first(x)))


# Accuracy falls once, at 200 bytes, and stays the same once, at 1,600.
DENTED_SIZES = (50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
DENTED = (0.78, 0.85, 0.84, 0.90, 0.95, 0.95)


def test_points_that_do_not_rise_are_left_out_and_counted() -> None:
    found = between(curve("a"), curve("b", DENTED_SIZES, DENTED))
    kept = [(50.0, 0.78), (100.0, 0.85), (400.0, 0.90), (800.0, 0.95)]
    by_bytes = [
        [(math.log10(size), accuracy) for size, accuracy in points]
        for points in (list(zip(SIZES, ACCURACIES, strict=True)), kept)
    ]
    by_accuracy = [[(y, x) for x, y in points] for points in by_bytes]
    rate = 100 * (10 ** oracle(*by_accuracy) - 1)
    assert found["bd_rate"].value == pytest.approx(rate, rel=1e-6)
    assert found["bd_utility"].value == pytest.approx(oracle(*by_bytes), rel=1e-6)
    note = "2 of 6 points of b not above the curve's best so far were left out"
    assert [delta.note for delta in found.values()] == [note] * 2


def test_a_point_that_nobody_would_choose_moves_no_delta() -> None:
    clean = between(curve("a"), curve("b", [2 * size for size in SIZES]))
    sizes, accuracies = (*(2 * size for size in SIZES), 1200.0), (*ACCURACIES, 0.91)
    dented = between(curve("a"), curve("b", sizes, accuracies))
    for metric, delta in clean.items():
        assert not delta.left_out and dented[metric].left_out
        assert dented[metric]._replace(left_out=()) == delta


def test_of_two_points_of_equal_bytes_the_better_one_counts() -> None:
    twice = curve("b", (*SIZES, 400.0), (*ACCURACIES, 0.85))
    found = between(curve("a"), twice)["bd_utility"]
    assert found.value == pytest.approx(0, abs=1e-12) and found.note.startswith("1 of 5")


def test_too_few_points_that_rise_are_no_curve_and_are_counted() -> None:
    note = between(curve("a"), curve("b", accuracies=(0.9, 0.8, 0.94, 0.7)))["bd_rate"].note
    assert note.startswith("b has 2 points that rise, a curve 3; 2 of 4 points of b")


def test_overlap_of_two_end_points_is_too_little() -> None:
    found = between(curve("a"), curve("b", [700.0, 1400.0, 2800.0, 5600.0]))
    assert "only its two ends" in found["bd_utility"].note


def test_each_two_curves_are_told_of_once_the_one_of_fewer_bytes_against_the_other() -> None:
    smaller = [size / 2 for size in SIZES]
    table = curve("learned", learned=1) + curve("pooled") + curve("uniform", smaller)
    pairs = [(delta.baseline, delta.variant) for delta in deltas(table)]
    assert len(pairs) == 2 * 3  # both metrics of three pairs
    assert set(pairs) == {("pooled", "learned"), ("learned", "uniform"), ("pooled", "uniform")}


def test_pixels_compete_as_the_best_of_all_their_points() -> None:
    full = [line._replace(pixels=1) for line in curve("avif · 1", SIZES[1:], ACCURACIES[1:])]
    half = [line._replace(pixels=1) for line in curve("avif · 0.5", SIZES[:3], ACCURACIES[:3])]
    table = curve("vq", [size / 10 for size in SIZES]) + full + half
    found = {(d.baseline, d.metric): d for d in deltas(table) if d.variant == "vq"}
    best = found[BEST_PIXELS, "bd_rate"]
    assert best.value == pytest.approx(-90) and (best.overlap_low, best.overlap_high) == (0.8, 0.94)
    assert BEST_PIXELS in {d.variant for d in deltas(table, "avif · 1")}
    assert {d.variant for d in deltas(table, BEST_PIXELS)} == {"vq", "avif · 1", "avif · 0.5"}
    assert BEST_PIXELS not in {d.baseline for d in deltas(curve("vq") + full)}


def test_the_best_of_all_pixels_is_no_worse_than_one_of_them() -> None:
    # At quarter resolution 450 bytes are hardly better than 300 at half: the curve through both
    # would spend 150 bytes on nothing, where half resolution has long gained.
    half = curve("avif · 0.5", (150.0, 300.0, 600.0, 1200.0), (0.80, 0.88, 0.92, 0.94))
    quarter = curve("avif · 0.25", (70.0, 140.0, 280.0, 450.0), (0.70, 0.79, 0.86, 0.881))
    table = [line._replace(pixels=1) for line in half + quarter]
    members = [member for member in deltas(table, BEST_PIXELS) if member.metric == "bd_rate"]
    assert {member.variant for member in members} == {"avif · 0.5", "avif · 0.25"}
    assert all(member.value > -3 for member in members), members  # chords, not members


def test_points_of_fewer_splits_are_left_out_and_counted() -> None:
    whole = [line._replace(splits="0 1 2") for line in curve("a") + curve("b")]
    easy = [line._replace(splits="0 2") for line in curve("b", (150.0,), (0.99,))]
    rate, utility = deltas(whole + easy, "a")
    assert rate.value == pytest.approx(0, abs=1e-9) and utility.value == pytest.approx(0, abs=1e-9)
    assert rate.note == utility.note == "1 of b, of other splits, were left out"
    apart = deltas(whole[:4] + [line._replace(splits="0 2 3") for line in whole[4:]], "a")
    assert all(math.isnan(delta.value) for delta in apart)
    assert {delta.note for delta in apart} == {
        "b has 0 points that rise, a curve 3; 4 of b, of other splits, were left out"
    }


@pytest.mark.parametrize(
    ("distortions", "baseline"),
    [(("masked_pixels", "embedding"), "embedding"), (("masked_pixels", "other"), "masked_pixels")],
)
def test_learned_curves_are_compared_with_that_of_embedding_or_the_first(
    distortions: tuple[str, str], baseline: str
) -> None:
    names = [f"factorized · {distortion} · none" for distortion in distortions]
    table = [line for name in names for line in curve(name, learned=1)]
    pairs = {(delta.baseline, delta.variant) for delta in deltas(table)}
    first = f"factorized · {baseline} · none"
    assert pairs == {(first, name) for name in names if name != first}


def test_unknown_baseline_is_an_error_that_names_the_curves() -> None:
    with pytest.raises(ValueError, match=r"'poled' is not a curve.*: pooled"):
        deltas(curve("pooled"), "poled")


def test_a_printed_table_says_once_what_was_left_out_and_why_a_value_is_missing() -> None:
    console = Console(width=200)
    table = curve("a") + curve("b", DENTED_SIZES, DENTED) + curve("c", [9 * s for s in SIZES])
    with console.capture() as printed:
        console.print(delta_table(deltas(table), "linear"))
    assert "% (over 80.0 to 94.0 %)" in printed.get()
    assert printed.get().count("2 of 6 points of b") == 1
    assert "n/a: no overlap in bytes" in printed.get()
