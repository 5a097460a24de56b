"""Azure's clients: the deployment in the path is the model, the key comes as `api-key`."""

from __future__ import annotations

import openai
import pytest

from gateway.simulator import Options
from tests.support.stack import client, stack, threaded

MODELS = """
[[models]]
name = "THUDM/chatglm2-6b"
aliases = ["gpt-35-turbo"]
backends = ["gpu-0"]
[[keys]]
name = "team"
key = "sk-12345678"
"""


def azure(url: str, deployment: str | None = None) -> openai.AzureOpenAI:
    return openai.AzureOpenAI(
        azure_endpoint=url,
        api_key="sk-12345678",
        api_version="2024-06-01",
        max_retries=0,
        azure_deployment=deployment,
    )


def test_azure_sdk_gets_whole_and_streamed_answers() -> None:
    with threaded("chatglm2", MODELS) as one, azure(one.url) as sdk:
        whole = sdk.chat.completions.create(
            model="gpt-35-turbo", messages=[{"role": "user", "content": "你好"}]
        )
        with sdk.chat.completions.create(
            model="gpt-35-turbo", messages=[{"role": "user", "content": "你好"}], stream=True
        ) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert whole.model == "gpt-35-turbo"
    assert whole.choices[0].message.content == text != ""


def test_azure_deployment_wins_over_the_body() -> None:
    with threaded("chatglm2", MODELS) as one, azure(one.url, deployment="gpt-35-turbo") as sdk:
        answer = sdk.chat.completions.create(model="whatever", messages=[{"role": "user", "content": "你好"}])
    assert answer.model == "gpt-35-turbo"


@pytest.mark.parametrize("name", ["THUDM%2Fchatglm2-6b", "THUDM/chatglm2-6b", "gpt-35-turbo"])
@pytest.mark.parametrize("body", [{}, {"model": "other"}, {"model": ""}])
async def test_deployment_is_the_model(name: str, body: dict[str, str]) -> None:
    asked = body | {"messages": [{"role": "user", "content": "hi"}]}
    async with stack(Options(dialect="openai"), MODELS) as one, client(one) as http:
        answer = await http.post(
            f"/openai/deployments/{name}/chat/completions?api-version=2024-06-01",
            json=asked,
            headers={"api-key": "sk-12345678"},
        )
    assert (answer.status_code, answer.json()["model"]) == (200, name.replace("%2F", "/"))


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/openai/deployments/none/chat/completions", 404, "model_not_found"),
        ("/openai/deployments//chat/completions", 404, "not_found"),
        ("/openai/deployments/m/embeddings", 404, "not_found"),
    ],
)
async def test_unknown_deployment_is_told(path: str, status: int, code: str) -> None:
    async with stack("chatglm2", MODELS) as one, client(one) as http:
        answer = await http.post(
            path, json={"messages": [{"role": "user", "content": "hi"}]}, headers={"api-key": "sk-12345678"}
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("base", ["", "/", "/v1", "/openai", "/openai/v1/"])
def test_azure_sdk_finds_its_deployment_behind_every_base(base: str) -> None:
    with (
        threaded("chatglm2", MODELS) as one,
        openai.AzureOpenAI(
            base_url=one.url + base, api_key="sk-12345678", api_version="2024-06-01", max_retries=0
        ) as sdk,
    ):
        answer = sdk.chat.completions.create(
            model="gpt-35-turbo", messages=[{"role": "user", "content": "你好"}]
        )
        listed = [model.id for model in sdk.models.list()]
    assert answer.model == "gpt-35-turbo"
    assert "gpt-35-turbo" in listed
