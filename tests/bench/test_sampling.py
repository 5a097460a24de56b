"""Where samples belong."""

from collections import Counter

import pytest

from tests.bench.kit import ROOT
from tests.bench.sampling import Sampler, place, shares


@pytest.mark.parametrize(
    ("file", "where"),
    [
        pytest.param(f"{ROOT}/gateway/server.py", "gateway/server.py", id="module"),
        pytest.param(f"{ROOT}/gateway/upstream/pool.py", "gateway/upstream", id="room"),
        pytest.param(f"{ROOT}/.venv/lib/python3.11/site-packages/uvicorn/a/b.py", "uvicorn", id="package"),
        pytest.param("/usr/lib/python3.11/json/encoder.py", "python: json", id="library"),
        pytest.param("/usr/lib/python3.13/secrets.py", "python: secrets", id="library-module"),
        pytest.param("<string>", "python: <string>", id="made"),
    ],
)
def test_a_sample_belongs_to_a_room_a_package_or_the_library(file: str, where: str) -> None:
    assert place(file) == where


def test_shares_are_of_all_samples_and_the_largest_comes_first() -> None:
    assert shares(Counter({"a": 1, "b": 3})) == [["b", "75.0 %"], ["a", "25.0 %"]]


def test_no_samples_have_no_shares() -> None:
    assert shares(Counter()) == []


def test_nothing_is_noted_before_it_is_told_to() -> None:
    sampler = Sampler()
    sampler.note(0, None)
    assert sampler.places == Counter()
