"""A call in the forms that dialects, choices and other models need."""

from __future__ import annotations

import json
from typing import Any

from gateway.dialects import DIALECTS
from gateway.formats import openai
from gateway.formats.openai import ChatRequest
from gateway.path.call import Call
from gateway.tenancy.keys import Tenant

TENANT = Tenant("t")


def chat(**body: Any) -> ChatRequest:
    return openai.read_chat(json.dumps({"messages": [{"role": "user", "content": "hi"}], **body}).encode())


def test_dialects_of_pairs_get_the_whole_form_and_others_the_lean_one() -> None:
    whole, lean = chat(model="whole"), chat(model="lean")
    call = Call(whole, lean=lean)
    assert call.for_dialect(DIALECTS["chatglm2"]) is whole
    assert call.for_dialect(DIALECTS["openai"]) is lean
    assert Call(whole).for_dialect(DIALECTS["openai"]) is whole


def test_tenant_session_and_operation_are_kept_whatever_is_asked_instead() -> None:
    call = Call(chat(n=2), TENANT, chat(n=2), "s", "forward")
    for other in (call.single(), call.of("b"), call.asking(chat(model="c"))):
        assert (other.tenant, other.session, other.operation) == (TENANT, "s", "forward")


def test_one_choice_and_another_model_are_asked_in_both_forms() -> None:
    call = Call(chat(n=2), lean=chat(n=2))
    single, other = call.single(), call.of("b")
    assert single.lean is not None
    assert (single.request.n, single.lean.n) == (1, 1)
    assert other.lean is not None
    assert (other.request.model, other.lean.model) == ("b", "b")
