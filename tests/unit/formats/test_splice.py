"""Members changed in their bytes: the same as parsing and writing anew, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.splice import with_member, with_model


@pytest.mark.parametrize(
    ("raw", "changed"),
    [
        pytest.param(b'{"model":"a","n":1}', b'{"model":"b","n":1}', id="first"),
        pytest.param(b'{"n":[{"x":1}],"model" :\n "a"}', b'{"n":[{"x":1}],"model" :\n "b"}', id="blanks"),
        pytest.param(
            '{"text":"你好","model":"a"}'.encode(), '{"text":"你好","model":"b"}'.encode(), id="chinese"
        ),
    ],
)
def test_the_model_alone_is_changed(raw: bytes, changed: bytes) -> None:
    assert with_model(raw, json.loads(raw), "b") == changed


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"model":"a","text":"\\"model\\""}', id="no-escape-hides-it"),
        pytest.param(b'{"mod\\u0065l":"a","x":{"model":"a"}}', id="escaped-key"),
        pytest.param(b'{"model":"a","x":{"model":"a"}}', id="twice"),
        pytest.param(b'{"model":"\\u0061"}', id="escaped-value"),
        pytest.param(b'{"x":"model"}', id="only-a-value"),
        pytest.param(b'{"model":7}', id="no-text"),
        pytest.param(b'{"x":{"model":""}}', id="another-objects"),
        pytest.param(b"{}", id="none"),
    ],
)
def test_in_doubt_nothing_is_changed(raw: bytes) -> None:
    changed = with_model(raw, json.loads(raw), "b")
    assert changed is None or json.loads(changed) == {**json.loads(raw), "model": "b"}


def test_model_of_an_inner_object_is_not_taken_for_the_top_level_one() -> None:
    raw = b'{"messages":[],"metadata":{"model":""}}'
    changed = with_model(raw, json.loads(raw), "b")
    assert changed == b'{"model":"b","messages":[],"metadata":{"model":""}}'


def test_a_member_is_put_before_the_others() -> None:
    assert with_member(b' {\n"a":1}', b'"b":{"c":2}') == b' {"b":{"c":2},\n"a":1}'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda child: st.lists(child) | st.dictionaries(st.text(), child),
)


@given(
    st.dictionaries(st.sampled_from(["model", "a", '"model"', "b"]), JSON),
    st.text(),
    st.text(),
    st.booleans(),
)
def test_the_change_is_what_parsing_and_writing_would_give(
    body: dict[str, Any], old: str, new: str, escaped: bool
) -> None:
    body["model"] = old
    raw = json.dumps(body, ensure_ascii=escaped).encode(errors="replace")
    changed = with_model(raw, json.loads(raw), new)
    if changed is not None:
        assert json.loads(changed) == {**json.loads(raw), "model": json.loads(json.dumps(new).encode())}
