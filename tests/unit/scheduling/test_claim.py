from __future__ import annotations

from gateway.scheduling.claim import Claim


def test_a_claim_that_says_no_more_is_an_ordinary_one() -> None:
    claim = Claim("m", ("a", "b"))
    assert (claim.tenant, claim.weight, claim.priority, claim.size, claim.affinity) == ("", 1, 0, 0, "")
