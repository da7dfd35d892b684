import pytest

from nec.report.texts import size


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (0.5, "0.5 B"),
        (40, "40 B"),
        (999.4, "999 B"),
        (999.7, "1 kB"),
        (2_146, "2.15 kB"),
        (999_400, "999 kB"),
        (999_700, "1 MB"),
        (31e6, "31 MB"),
        (3.1e9, "3.1 GB"),
        (4.2e12, "4.2 TB"),
    ],
)
def test_a_size_has_three_digits_and_the_unit_that_they_fit(count: float, said: str) -> None:
    assert size(count) == said
