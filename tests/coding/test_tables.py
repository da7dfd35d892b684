import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nec.coding import CorruptStreamError, Tables, densities
from nec.coding.frequencies import TOTAL


@settings(max_examples=100, deadline=None)
@given(
    arrays(
        np.int64,
        st.tuples(st.integers(0, 4), st.integers(0, 20)),
        elements=st.one_of(st.integers(0, 3), st.integers(0, 2**40)),
    )
)
def test_counted_symbols_have_slots_and_uncounted_ones_none(counts):
    tables = Tables.from_counts(counts, np.zeros(len(counts), int))
    assert (tables.frequencies.sum(axis=1) == TOTAL).all()
    assert ((tables.frequencies[:, :-1] > 0) == (counts > 0)).all()
    assert (tables.frequencies[:, -1] >= 1).all()
    assert Tables.from_bytes(tables.to_bytes()).sha256 == tables.sha256
    assert np.array_equal(Tables.from_plain(tables.plain).frequencies, tables.frequencies)


def test_frequencies_are_within_a_thirtieth_of_their_share():
    pmfs = np.random.default_rng(0).dirichlet(np.ones(50), 20)
    shares = Tables.from_pmfs(pmfs, np.zeros(20, int)).frequencies[:, :-1] / TOTAL
    assert (np.abs(shares - pmfs) <= pmfs / 30 + 1 / TOTAL)[pmfs > 2.0**-20].all()


@pytest.mark.parametrize("count", [2, 3, 100, 5000, 70_000])
def test_equally_likely_symbols_cost_what_they_must(count):
    tables = Tables.from_counts(np.ones((1, count), int), [0])
    bits = -np.log2(tables.frequencies[0, :-1] / TOTAL)
    assert bits.mean() == pytest.approx(np.log2(count), abs=3e-4)


def test_counts_of_any_size_make_tables():
    huge = Tables.from_counts([[2**62, 2**62, 2**62], [2**63 - 1, 1, 0]], [0, 0]).frequencies
    assert np.abs(huge[0, :3] / TOTAL - 1 / 3).max() < 0.01
    assert huge[1].tolist() == [TOTAL - 2, 1, 0, 1]
    # Many that are rarer than a slot, beside many that share almost all of them.
    common = Tables.from_counts([[10**6] * 1000 + [1] * 20_000], [0]).frequencies[0]
    assert (common[1000:] == 1).all()
    assert np.abs(common[:1000] / TOTAL - 1 / 1000).max() < 1e-4


def test_tables_are_as_large_as_can_be_read():
    with pytest.raises(ValueError, match="too large"):
        Tables.from_laplace(np.full(8200, 400.0))
    header = b"\x01" + (0).to_bytes(4, "little") + (2**32 - 1).to_bytes(4, "little")
    with pytest.raises(CorruptStreamError, match="too large"):
        Tables.from_bytes(header + zlib.compress(b""))


def test_what_a_pmf_lacks_to_one_is_the_escapes():
    tables = Tables.from_pmfs([[0.5, 0.25]], [0])
    assert tables.frequencies.tolist() == [[TOTAL // 2, TOTAL // 4, TOTAL // 4]]


def test_what_is_rarest_is_left_to_the_escape():
    tables = Tables.from_pmfs([[1 - 2.0**-21, 2.0**-21]], [0])
    assert tables.frequencies.tolist() == [[TOTAL - 8, 0, 8]]


def test_a_certain_symbol_costs_next_to_nothing():
    tables = Tables.from_counts([[0, 1000, 0]], [-1])
    assert tables.frequencies.tolist() == [[0, TOTAL - 1, 0, 1]]
    assert tables.code_length(np.zeros((1, 200_000), int), np.zeros(200_000, int))[0] < 0.02


def test_a_pmf_above_one_is_normalized():
    once = Tables.from_pmfs([[0.5, 0.3, 0.2]], [0])
    assert np.abs(Tables.from_pmfs([[5, 3, 2]], [0]).frequencies - once.frequencies).max() < 1e5


def test_the_last_bits_of_a_float_decide_nothing():
    pmfs = np.random.default_rng(0).dirichlet(np.ones(30), 200)
    noisy = pmfs * (1 + 1e-15 * np.random.default_rng(1).standard_normal(pmfs.shape))
    zero = np.zeros(200, int)
    assert Tables.from_pmfs(pmfs, zero).sha256 == Tables.from_pmfs(noisy, zero).sha256


@pytest.mark.parametrize(
    ("make", "std"),
    [(Tables.from_laplace, 2**0.5), (Tables.from_gaussian, 1.0), (Tables.from_logistic, 1.8138)],
)
def test_parametric_tables_have_their_spread_and_no_mean(make, std):
    tables = make([0.7, 3.0, 20.0])
    values = tables.offsets[:, None] + np.arange(tables.frequencies.shape[1] - 1)
    p = tables.frequencies[:, :-1] / TOTAL
    assert (p * values).sum(axis=1) == pytest.approx([0, 0, 0], abs=0.01)
    expected = np.sqrt((std * np.array([0.7, 3.0, 20.0])) ** 2 + 1 / 12)  # rounding adds 1/12
    assert np.sqrt((p * values**2).sum(axis=1)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("tail", "scale", "oracle"),
    [
        (densities.laplace, 1.7, "laplace"),
        (densities.gaussian, 2.3, "norm"),
        (densities.logistic, 0.9, "logistic"),
    ],
)
def test_tails_are_scipys(tail, scale, oracle):
    stats = pytest.importorskip("scipy.stats")
    x = np.linspace(0, 40, 2000)
    expected = getattr(stats, oracle).sf(x, scale=scale)
    assert tail(x, np.array(scale)) == pytest.approx(expected, abs=2e-15)


def test_parametric_tables_are_the_same_on_every_machine():
    # Computed by sums and products alone; these hold wherever IEEE 754 does.
    scales = np.geomspace(0.05, 30, 50)
    made = [f(scales) for f in (Tables.from_laplace, Tables.from_gaussian, Tables.from_logistic)]
    assert [tables.sha256[:16] for tables in made] == [
        "2a402a5b3ee864f0",
        "8abd00fcecfd37fa",
        "8922594e1d2a53be",
    ]


@pytest.mark.parametrize("scale", [0.12, 0.5, 4.0, 60.0])
def test_rounding_to_a_table_costs_next_to_nothing(scale):
    pmf, radius = densities.rounded(densities.laplace, np.array([scale]), 14.0)
    tables = Tables.from_laplace([scale])
    symbols = np.arange(-radius, radius + 1)[None]
    bits = [tables.code_length(symbols[:, [i]], [0])[0] for i in range(len(pmf[0]))]
    p = pmf[0][pmf[0] > 0]
    entropy = -(p * np.log2(p)).sum()
    assert entropy <= (pmf[0] * bits).sum() <= 1.0005 * entropy


@pytest.mark.parametrize("scales", [[0.0], [-1.0], [np.nan], [np.inf], 1.0])
def test_a_scale_is_positive(scales):
    with pytest.raises(ValueError, match="numbers > 0"):
        Tables.from_laplace(scales)


def test_tables_survive_their_bytes():
    for tables in (
        Tables.from_laplace(np.linspace(0.01, 50, 99)),
        Tables.from_counts(np.zeros((2, 5), int), [-9, 2**31 - 1]),
        Tables.from_counts(np.zeros((0, 0), int), []),
    ):
        back = Tables.from_bytes(tables.to_bytes())
        assert np.array_equal(back.frequencies, tables.frequencies)
        assert np.array_equal(back.offsets, tables.offsets)
        assert back.sha256 == tables.sha256


def test_tables_of_a_wide_model_stay_small():
    scales = np.geomspace(0.02, 8, 1500)
    assert len(Tables.from_laplace(scales).to_bytes()) < 60_000


def test_damaged_tables_are_refused():
    data = Tables.from_laplace([1.0, 2.0]).to_bytes()
    for bad in [data[:n] for n in range(len(data))] + [data + b"\0", b"\x02" + data[1:]]:
        with pytest.raises(CorruptStreamError):
            Tables.from_bytes(bad)
    with pytest.raises(CorruptStreamError, match="too large"):
        Tables.from_bytes(b"\x01" + b"\xff" * 8 + data[9:])


def test_tables_cannot_be_edited():
    tables = Tables.from_laplace([1.0])
    for name in ("frequencies", "offsets"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(tables, name)[:] = 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tables(np.array([[1, 2]]), np.array([0])), "sum to 16777216"),
        (lambda: Tables(np.array([[TOTAL, 0]]), np.array([0])), "escape has frequency 0"),
        (lambda: Tables.from_counts([[1, -1]], [0]), "a count is -1"),
        (lambda: Tables.from_counts([[0.5]], [0]), "give 2-d integers"),
        (lambda: Tables.from_counts([[1]], [0, 1]), "K contexts"),
        (lambda: Tables.from_counts([[1]], [2**31]), "beyond int32"),
        (lambda: Tables.from_counts([[0, 1]], [2**31 - 1]), "beyond int32"),
        (lambda: Tables.from_counts([[1]], [-(2**31) - 1]), "values reach"),
        (lambda: Tables(np.array([[TOTAL - 202, 101, 101]]), np.array([0])), "significant bits"),
        (lambda: Tables.from_counts(np.ones((1, 1 << 17 | 1), int), [0]), "leave rare"),
        (lambda: Tables.from_pmfs([[np.nan]], [0]), "finite probabilities"),
    ],
)
def test_wrong_tables_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
