"""Requests of one chat have the same session key and the same prefix hashes."""

from gateway.scheduling.affinity import LONGEST, chain, session


def test_a_session_has_the_name_the_client_gave() -> None:
    assert session("user-7", [b"hello"]) == "user-7"


def test_without_a_name_a_session_is_known_by_its_first_turns() -> None:
    assert session(None, [b"be brief", b"hello"]) == session("", iter([b"be brief", b"hello"]))
    assert session(None, [b"be brief", b"hello"]) != session(None, [b"be brief", b"hi"])
    assert session(None, [b"ab", b"c"]) != session(None, [b"a", b"bc"])


def test_a_chat_that_grows_begins_as_before() -> None:
    earlier = chain([b"hello", b"hi", b"how are you?"])
    later = chain([b"hello", b"hi", b"how are you?", b"well", b"good"])
    assert later[:3] == earlier
    assert len(set(later)) == 5


def test_chats_that_differ_share_no_beginning_from_there_on() -> None:
    one = chain([b"hello", b"hi", b"same"])
    other = chain([b"hello", b"ho", b"same"])
    assert one[0] == other[0]
    assert set(one[1:]).isdisjoint(other[1:])


def test_of_a_long_chat_only_the_first_messages_count() -> None:
    assert len(chain([b"x"] * 1000)) == LONGEST
