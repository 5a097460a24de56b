"""The defaults of a slot request, and the model of its ticket."""

from gateway.scheduling.slot_request import SlotRequest, Ticket


def test_a_claim_needs_a_model_and_backends_only() -> None:
    slot_request = SlotRequest("m", ("a", "b"))
    assert (slot_request.tenant, slot_request.weight, slot_request.priority, slot_request.size) == (
        "",
        1,
        0,
        0,
    )
    assert (slot_request.affinity, slot_request.prefix) == ("", ())


def test_a_ticket_waits_in_the_queue_of_its_claims_model_and_is_only_equal_to_itself() -> None:
    slot_request = SlotRequest("m", ("a",))
    ticket = Ticket(1, slot_request, 60.0)
    assert ticket.model == "m"
    assert ticket.lane is None
    assert ticket != Ticket(1, slot_request, 60.0)
