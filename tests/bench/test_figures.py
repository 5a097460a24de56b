"""Medians, ranges and slopes."""

import pytest

from tests.bench.figures import Spread, differ, quantile, shown, slope, spread


def test_a_spread_has_the_median_and_the_ends() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([4.0, 2.0]) == Spread(3.0, 2.0, 4.0)


def test_nothing_has_no_spread() -> None:
    assert spread([]) is None


def test_a_spread_is_shown_with_three_digits_that_count() -> None:
    assert str(Spread(3.9712, 0.5, 41.13)) == "3.97 [0.500..41.1]"


@pytest.mark.parametrize(
    ("one", "other", "finding"),
    [
        pytest.param(Spread(2, 1, 3), Spread(2.2, 1.5, 3), False, id="ranges-overlap"),
        pytest.param(Spread(2, 1.9, 2.1), Spread(2.3, 2.2, 2.4), True, id="ranges-apart"),
        pytest.param(Spread(2.3, 2.2, 2.4), Spread(2, 1.9, 2.1), True, id="ranges-apart-turned"),
        pytest.param(Spread(2, 1, 9), Spread(2.6, 1, 9), True, id="medians-more-than-a-quarter-apart"),
        pytest.param(Spread(2, 1, 9), Spread(2.5, 1, 9), False, id="medians-a-quarter-apart"),
    ],
)
def test_a_difference_counts_when_ranges_or_medians_are_apart(
    one: Spread, other: Spread, finding: bool
) -> None:
    assert differ(one, other) is finding


@pytest.mark.parametrize(
    ("share", "value"),
    [
        pytest.param(0.0, 1.0, id="least"),
        pytest.param(0.5, 6.0, id="p50"),
        pytest.param(1.0, 10.0, id="most"),
    ],
)
def test_quantiles_need_no_order(share: float, value: float) -> None:
    assert quantile([10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], share) == value


def test_nothing_has_the_quantile_0() -> None:
    assert quantile([], 0.5) == 0.0


def test_the_slope_is_the_rise_of_the_best_line() -> None:
    assert slope([(0, 1.0), (1, 3.0), (2, 5.0)]) == pytest.approx(2.0)
    assert slope([(0, 5.0), (1, 6.0), (2, 5.0)]) == pytest.approx(0.0)


def test_one_place_has_no_slope() -> None:
    assert slope([(1, 1.0), (1, 2.0)]) == 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(None, "-", id="none"),
        pytest.param(0.0, "0", id="zero"),
        pytest.param(1290.4, "1290", id="thousands"),
        pytest.param(39.64, "39.6", id="tens"),
        pytest.param(0.09604, "0.0960", id="hundredths"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_count(value: float | None, text: str) -> None:
    assert shown(value) == text
