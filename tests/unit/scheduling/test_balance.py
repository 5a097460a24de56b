"""Among free backends the emptiest is chosen, and of equals the one that has waited longest."""

from dataclasses import dataclass

import pytest

from gateway.scheduling.balance import least_busy


@dataclass
class Free:
    """A candidate: requests in flight, room for them, and the number of its last grant."""

    busy: int = 0
    slots: int = 1
    granted: int = 0


@pytest.mark.parametrize(
    ("free", "chosen"),
    [
        pytest.param([Free()], 0, id="only-one"),
        pytest.param([Free(), Free()], 0, id="all-new-takes-the-first"),
        pytest.param([Free(granted=3), Free(granted=1), Free(granted=2)], 1, id="longest-idle-of-equals"),
        pytest.param([Free(granted=1), Free()], 1, id="never-used-before-used"),
        pytest.param([Free(2, 8), Free(1, 8)], 1, id="fewer-in-flight"),
        pytest.param([Free(1, 2), Free(3, 8)], 1, id="smaller-share-not-smaller-number"),
        pytest.param([Free(1, 8, granted=1), Free(0, 1, granted=9)], 1, id="empty-beats-idle-for-long"),
        pytest.param([Free(4, 8, granted=2), Free(1, 2, granted=1)], 1, id="equal-shares-of-unequal-sizes"),
    ],
)
def test_the_emptiest_is_chosen_and_of_equals_the_longest_idle(free: list[Free], chosen: int) -> None:
    assert least_busy(free) == chosen


def test_a_fleet_at_rest_is_used_in_turn() -> None:
    fleet = [Free(), Free(), Free()]
    order = []
    for number in range(1, 7):
        place = least_busy(fleet)
        fleet[place].granted = number
        order.append(place)
    assert order == [0, 1, 2, 0, 1, 2]
