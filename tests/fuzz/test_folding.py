"""Any chat becomes a history the old servers take, and no word of it is lost."""

from __future__ import annotations

import json
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import Profile
from gateway.dialects.chatglm3_native import ChatGLM3NativeDialect
from gateway.dialects.shared import fitting, v3_messages
from gateway.dialects.shared.folding import AGREED, FoldedConversation, fold
from gateway.formats.openai import ChatRequest, read_chat

ROLES = ("system", "developer", "user", "assistant")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def chat_of(messages: list[dict[str, Any]]) -> ChatRequest:
    return read_chat(json.dumps({"messages": messages}).encode())


@st.composite
def chats(
    draw: st.DrawFn, first: tuple[str, ...] = (), last: tuple[str, ...] = ("user", "system", "developer")
) -> list[tuple[str, str]]:
    """A chat that may be answered, as roles and texts; each text is marked by its place and found again."""
    roles = [*first, *draw(st.lists(st.sampled_from(ROLES), max_size=11)), draw(st.sampled_from(last))]
    return [(role, f"<{place}>{draw(TEXTS)}</{place}>") for place, role in enumerate(roles)]


def request_for(chat: list[tuple[str, str]]) -> ChatRequest:
    return chat_of([{"role": role, "content": text} for role, text in chat])


def whole(folded: FoldedConversation) -> str:
    return "\x00".join([half for pair in folded.history for half in pair] + [folded.prompt.text])


def in_order(texts: list[str], text: str) -> bool:
    places = [text.find(one) for one in texts]
    return -1 not in places and places == sorted(places)


def spoken_by(chat: list[tuple[str, str]], *roles: str) -> list[str]:
    return [text for role, text in chat if role in roles]


@given(chats(), st.sampled_from(["merge", "pair"]), st.sampled_from(["pair", "fold"]))
def test_every_text_of_a_chat_is_in_its_folding_in_order(
    chat: list[tuple[str, str]], system: Literal["merge", "pair"], leading: Literal["pair", "fold"]
) -> None:
    folded = fold(request_for(chat), system=system, leading_assistant=leading)
    text = whole(folded)
    assert in_order(spoken_by(chat, "user", "assistant"), text)
    assert in_order(spoken_by(chat, "system", "developer"), text)
    assert all(text.count(one) == 1 for _, one in chat)


@given(chats())
def test_a_folding_is_pairs_of_texts_and_each_side_keeps_its_words(chat: list[tuple[str, str]]) -> None:
    folded = fold(request_for(chat))
    questions = "\x00".join([question for question, _ in folded.history] + [folded.prompt.text])
    answers = "\x00".join(answer for _, answer in folded.history)
    assert in_order(spoken_by(chat, "assistant"), answers)
    assert in_order(spoken_by(chat, "user"), questions)
    assert in_order(spoken_by(chat, "system", "developer"), questions)
    assert all(answer for _, answer in folded.history)
    assert all(question for question, _ in folded.history[1:])


@given(chats())
def test_a_system_text_stands_before_the_question_that_follows_it(chat: list[tuple[str, str]]) -> None:
    text = whole(fold(request_for(chat)))
    for place, (role, one) in enumerate(chat):
        following = spoken_by(chat[place:], "user")
        if role in ("system", "developer") and following:
            assert text.find(one) < text.find(following[0])


@given(chats())
def test_trimming_loses_neither_system_nor_the_question(chat: list[tuple[str, str]]) -> None:
    folded = fold(request_for(chat))
    question = folded.prompt.text
    while folded.pairs:
        pairs = len(folded.pairs)
        assert folded.without_oldest(2) == folded.without_oldest().without_oldest(1)
        folded = folded.without_oldest()
        assert len(folded.pairs) == pairs - 1
        assert in_order(spoken_by(chat, "system", "developer"), whole(folded))
        assert question in folded.prompt.text


@given(chats(first=("system",), last=("user",)))
def test_a_system_pair_comes_first_and_is_agreed_to(chat: list[tuple[str, str]]) -> None:
    question, answer = fold(request_for(chat), system="pair").history[0]
    assert in_order(spoken_by(chat, "system", "developer"), question)
    assert answer == AGREED


CALLS = st.lists(
    st.tuples(st.sampled_from(["f", "g"]), st.dictionaries(TEXTS, TEXTS, max_size=3)), max_size=3
)


@given(TEXTS, CALLS, TEXTS)
def test_calls_and_results_are_never_lost(
    text: str, calls: list[tuple[str, dict[str, str]]], result: str
) -> None:
    made = [
        {
            "id": f"c{place}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for place, (name, arguments) in enumerate(calls)
    ]
    results = [{"role": "tool", "tool_call_id": one["id"], "content": result} for one in made]
    asked = {"role": "user", "content": "q"}
    said = {"role": "assistant", "content": text, "tool_calls": made}
    request = chat_of([asked, said, *results, asked])
    answer = whole(fold(request))
    assert text in answer
    assert all(f"Called {name} with {json.dumps(arguments)}" in answer for name, arguments in calls)
    assert all(f"Tool {name} returned: {result}" in answer for name, _ in calls)
    old = v3_messages.translated(request)
    assert [one["content"] for one in old if one["role"] == "function"] == [result or " "] * len(calls)
    assert sum(one["content"].count("```python\n") for one in old if "function_call" in one) >= len(calls)


@given(chats())
def test_the_newer_wire_keeps_every_message_in_its_place(chat: list[tuple[str, str]]) -> None:
    sent = v3_messages.translated(request_for(chat))
    assert [one["content"] for one in sent] == [text for _, text in chat]
    texts = "\x00".join(one["content"] for one in v3_messages.folded(sent))
    assert in_order(spoken_by(chat, "user", "assistant"), texts)
    assert in_order(spoken_by(chat, "system", "developer"), texts)


@given(chats())
def test_the_newer_wire_trims_to_its_system_texts_and_last_question(chat: list[tuple[str, str]]) -> None:
    sent = v3_messages.translated(request_for(chat))
    last = spoken_by(chat, "user")[-1:]
    for start in fitting.exchanges(sent):
        texts = [one["content"] for one in fitting.without_before(sent, start)]
        assert [text for _, text in chat if text in texts] == texts
        assert set(spoken_by(chat, "system", "developer") + last) <= set(texts)


@given(chats())
def test_history_of_roles_is_objects_that_lose_no_word(chat: list[tuple[str, str]]) -> None:
    outgoing = ChatGLM3NativeDialect().ask(
        request_for(chat), Profile(model="m", context=100_000), stream=False
    )
    sent = json.loads(outgoing.body)
    assert all(set(one) == {"role", "content"} for one in sent["history"])
    assert {one["role"] for one in sent["history"]} <= {"system", "user", "assistant"}
    texts = [*(one["content"] for one in sent["history"]), sent["prompt"]]
    assert all("\x00".join(texts).count(one) == 1 for _, one in chat)
    assert in_order(spoken_by(chat, "user", "assistant"), "\x00".join(texts))
    assert sent["prompt"]
