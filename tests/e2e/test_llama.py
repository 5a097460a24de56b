"""A real, very small language model behind ChatGLM-6B's own wire, spoken to through the official SDK."""

from __future__ import annotations

import importlib.util

import openai
import pytest

from gateway.simulator import Options
from tests.support.programs import ROOT
from tests.support.stack import threaded

MODELS = ROOT / ".models"
HAVE_MODEL = importlib.util.find_spec("xllamacpp") is not None and any(MODELS.glob("*"))

pytestmark = [
    pytest.mark.llm,
    pytest.mark.skipif(not HAVE_MODEL, reason="no model here: run `make test-llm`"),
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("dialect", ["chatglm", "chatglm3"])
def test_a_real_answer_streams_through_the_official_sdk(dialect: str) -> None:
    options = Options(dialect=dialect, brain="llama", model=MODELS)
    with (
        threaded(options) as one,
        openai.OpenAI(base_url=f"{one.url}/v1", api_key="none", timeout=280) as client,
    ):
        chunks = list(
            client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "Name the capital of France in one short sentence."}],
                max_tokens=200,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert one.only.completed == 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    # So small a model is often wrong; but it speaks in words, and not in those of the canned brain.
    assert len(text.split()) >= 3
    assert "simulated" not in text
    assert sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].delta.content) > 1
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] in ("stop", "length")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
