"""How long a backend rests after failures: an exponential back-off, shortened at random. Pure."""

from __future__ import annotations

REST = 0.5
"""Seconds of rest after the first failure. The time doubles with each further failure."""
SPREAD = 0.25
"""The largest fraction of a time that is removed at random, so that gateways do not retry in step."""

_MOST_DOUBLINGS = 16
"""Far above what any longest rest allows, and low enough that no float overflows."""


def rest_after(count: int, longest: float, chance: float) -> float:
    """Return the rest in seconds after `count` failures in a row (from 1), at most `longest`.

    `chance` is a random number from 0 to below 1.
    """
    doublings = min(count - 1, _MOST_DOUBLINGS)
    return spread(min(longest, REST * 2.0**doublings), chance)


def spread(seconds: float, chance: float) -> float:
    """Return `seconds` shortened by up to the fraction `SPREAD`; `chance` is from 0 to below 1."""
    return seconds * (1.0 - SPREAD * chance)
