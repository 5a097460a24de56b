"""A claim needs little to be said, and its ticket knows the model."""

from gateway.scheduling.claim import Claim, Ticket


def test_a_claim_needs_a_model_and_backends_only() -> None:
    claim = Claim("m", ("a", "b"))
    assert (claim.tenant, claim.weight, claim.priority, claim.size) == ("", 1, 0, 0)
    assert (claim.affinity, claim.prefix) == ("", ())


def test_a_ticket_waits_in_the_queue_of_its_claims_model_and_is_only_equal_to_itself() -> None:
    claim = Claim("m", ("a",))
    ticket = Ticket(1, claim, 60.0)
    assert ticket.model == "m"
    assert ticket.lane is None
    assert ticket != Ticket(1, claim, 60.0)
