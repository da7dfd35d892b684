"""Bytes to come close to raw, with pencil answers, and words where there are none."""

import math

import numpy as np
import pytest

from nec.report.bootstrap import TAIL, Compared, Drawn, Interval
from nec.report.results import Row
from nec.report.table import BEST_PIXELS, COLUMNS, TableRow
from nec.report.texts import within_text
from nec.report.within import (
    NO_RAW,
    NOT_REACHED,
    OTHER_SPLITS,
    SMALLEST,
    Within,
    interval_rows,
    within,
    write_within,
)

BLANKS = [math.nan] * (len(COLUMNS) - 9)
BLANK = TableRow("a", "", "linear", 0, 0, 1, "0", *BLANKS, {}, {})


def curve(sizes: tuple[float, ...], differences: tuple[float, ...]) -> list[TableRow]:
    return [
        BLANK._replace(
            setting=f"step={size:g}",
            payload_bytes_per_image=size,
            bytes_per_image=size + 600,  # a container
            metric="miou",
            value=0.9 + difference,
            difference=difference,
        )
        for size, difference in zip(sizes, differences, strict=True)
    ]


def found(*args: tuple[float, ...]) -> dict[float, Within]:
    return {one.points: one for one in within(curve(*args))}


def test_on_a_straight_line_over_log_bytes_half_the_way_is_the_geometric_mean() -> None:
    # Two points: 100 B are 3 points below raw, 10 kB are 1 above.
    close = found((100.0, 10_000.0), (-0.03, 0.01))
    assert close[1.0].bytes_per_image == pytest.approx(1000)
    assert close[2.0].bytes_per_image == pytest.approx(10**2.5)
    assert close[0.5].bytes_per_image == pytest.approx(100 * 100**0.625)
    assert close[1.0].note == ""


def test_at_a_point_it_is_the_bytes_of_the_point() -> None:
    close = found((100.0, 200.0, 400.0, 800.0), (-0.04, -0.02, -0.01, 0.0))
    assert [close[x].bytes_per_image for x in (2.0, 1.0)] == pytest.approx([200, 400])
    assert 400 < close[0.5].bytes_per_image < 800


def test_nothing_is_said_beyond_the_ends() -> None:
    close = found((100.0, 200.0), (-0.015, -0.008))
    assert math.isnan(close[0.5].bytes_per_image) and close[0.5].note == NOT_REACHED
    assert (close[2.0].bytes_per_image, close[2.0].note) == (100, SMALLEST)


def test_a_point_that_is_worse_at_more_bytes_raises_nothing() -> None:
    clean = found((100.0, 400.0, 800.0), (-0.03, -0.008, -0.001))
    assert found((100.0, 200.0, 400.0, 800.0), (-0.03, -0.05, -0.008, -0.001)) == clean


def test_a_point_of_fewer_splits_is_left_out() -> None:
    whole = [line._replace(splits="0 1 2 3 4") for line in curve((100.0, 400.0), (-0.03, -0.008))]
    lucky = curve((12.0,), (-0.001,))[0]
    assert within([*whole, lucky]) == within(whole)
    alone = within([*whole, lucky._replace(variant="lucky")])
    assert {one.note for one in alone if one.variant == "lucky"} == {OTHER_SPLITS}


def test_all_pixels_together_are_their_hull() -> None:
    half = curve((200.0, 400.0, 800.0), (-0.08, -0.03, -0.005))
    quarter = curve((100.0, 250.0, 450.0), (-0.10, -0.05, -0.029))
    lines = [
        line._replace(variant=name, pixels=1)
        for name, own in (("half", half), ("quarter", quarter))
        for line in own
    ]
    close = {one.variant: one.bytes_per_image for one in within(lines) if one.points == 2.0}
    assert math.isnan(close["quarter"])
    assert close[BEST_PIXELS] == pytest.approx(close["half"], rel=0.05)  # envelope: 0.27


def test_a_single_point_is_reached_or_not() -> None:
    close = found((12_288.0,), (-0.012,))
    assert math.isnan(close[1.0].bytes_per_image)
    assert (close[2.0].bytes_per_image, close[2.0].note) == (12_288, SMALLEST)


def test_without_raw_there_is_nothing_to_come_close_to() -> None:
    assert {one.note for one in within(curve((100.0, 200.0), (math.nan, math.nan)))} == set()
    lines = [line._replace(value=0.8) for line in curve((100.0, 200.0), (math.nan, math.nan))]
    assert {one.note for one in within(lines)} == {NO_RAW}


def test_file_has_a_row_per_curve_and_distance(tmp_path) -> None:
    write_within(tmp_path / "within.csv", within(curve((100.0, 10_000.0), (-0.03, 0.01))))
    lines = (tmp_path / "within.csv").read_text().splitlines()
    assert lines[0] == (
        "task,metric,variant,points,bytes_per_image,low,high,"
        "pixels_ratio,pixels_ratio_low,pixels_ratio_high,note"
    )
    assert lines[2] == "linear,miou,a,1,1000,,,,,,"


ORIGIN = Row("e", "all", "", "", "a", "", "linear", "", "fraction", 0.0)


def draws(lines, differences, sizes=None):
    """Replicates of points: differences and bytes that they have in each."""
    return {
        (line.variant, line.setting): Drawn(
            {"miou": Compared(Interval(line.value, 0, 0), None, {}, np.asarray(difference))},
            np.full(len(difference), line.payload_bytes_per_image) if sizes is None else sizes,
            TAIL,
        )
        for line, difference in zip(lines, differences, strict=True)
    }


def intervals(lines, drawn):
    close = within(lines, interval_rows(lines, "linear", "miou", drawn, ORIGIN))
    return {(one.variant, one.points): one for one in close}


def test_an_interval_holds_the_bytes_of_replicates() -> None:
    lines = curve((100.0, 10_000.0), (-0.03, 0.01))
    # Half of the draws lie a point above the sample, half a point below.
    shifts = np.repeat([-0.01, 0.01], 50)
    close = intervals(lines, draws(lines, [one.difference + shifts for one in lines]))
    one, half = close["a", 1.0], close["a", 0.5]
    assert (one.low, one.bytes_per_image, one.high) == pytest.approx((10**2.5, 1000, 10**3.5))
    assert half.low < half.bytes_per_image < half.high
    beyond = intervals(lines, draws(lines, [lines[0].difference + shifts, shifts - 0.02]))
    assert beyond["a", 0.5].high == math.inf
    assert all(math.isnan(one.low) for one in within(lines))


def test_fewer_bytes_than_any_points_may_do_where_the_smallest_does() -> None:
    lines = curve((100.0, 10_000.0), (-0.012, 0.01))
    close = intervals(
        lines, draws(lines, [one.difference + np.array([-0.01, 0.0]) for one in lines])
    )
    assert close["a", 1.5].low == 0 and close["a", 1.5].high > 100
    assert within_text(close["a", 1.5]).startswith("≤ 100 B [–, ")


def test_bytes_vary_with_the_images_drawn() -> None:
    lines = curve((100.0,), (-0.02,))
    one = intervals(lines, draws(lines, [[-0.02] * 3], np.array([80.0, 100.0, 125.0])))["a", 2.0]
    assert (one.low, one.high) == (0, 125)


def test_the_interval_of_all_pixels_is_of_all_their_points() -> None:
    half, quarter = curve((200.0, 800.0), (-0.03, -0.005)), curve((100.0, 300.0), (-0.05, -0.02))
    lines = [
        one._replace(variant=name, pixels=1)
        for name, own in (("half", half), ("quarter", quarter))
        for one in own
    ]
    found = intervals(lines, draws(lines, [[x.difference] * 9 for x in lines]))
    reached = [one for one in found.values() if not math.isnan(one.bytes_per_image)]
    between = [one for one in reached if one.note != SMALLEST]
    assert len(between) == 9 and BEST_PIXELS in {one.variant for one in between}
    for one in between:
        assert one.low == one.high == pytest.approx(one.bytes_per_image, rel=1e-12)


def test_the_ratio_to_pixels_is_paired_and_says_what_no_draw_tells() -> None:
    ours = curve((100.0, 1_000.0), (-0.03, 0.01))
    pixels = [
        one._replace(variant="avif", pixels=1) for one in curve((1_000.0, 10_000.0), (-0.03, 0.01))
    ]
    lines, shifts = [*ours, *pixels], np.linspace(-0.008, 0.008, 99)  # both alike: the ratio stays
    alike = [one.difference + shifts for one in lines]
    close = intervals(lines, draws(lines, alike))
    one = close["a", 1.0]
    assert one.low < one.bytes_per_image < one.high
    assert one[7:10] == pytest.approx((10, 10, 10))
    assert all(math.isnan(value) for value in close["avif", 1.0][7:10])
    never = intervals(lines, draws(lines, [*alike[:3], shifts - 0.02]))
    assert never["a", 1.0][8:10] == (math.inf, math.inf)
    neither = intervals(lines, draws(lines, [alike[0], shifts - 0.02] * 2))
    assert neither["a", 0.5][8:10] == (0, math.inf)


def test_a_task_that_is_nowhere_defined_has_no_intervals() -> None:
    assert interval_rows(curve((100.0,), (math.nan,)), "linear", "miou", {}, ORIGIN) == []
