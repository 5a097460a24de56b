"""The list of models, and its single entries: names and aliases that the key may use."""

from __future__ import annotations

import pytest

from tests.support.asgi import Call, Rig, rig
from tests.support.servers import Servers, native

EXTRA = """
[[models]]
name = "m"
aliases = ["gpt-3.5-turbo", "THUDM/m"]
[[models]]
name = "other"
backends = ["a"]
[[keys]]
name = "all"
key = "sk-all-models"
[[keys]]
name = "one"
key = "sk-one-model"
models = ["other"]
"""


async def get(house: Rig, path: str, key: str = "sk-all-models") -> Call:
    return await house.get(path, headers={"authorization": f"Bearer {key}"})


async def test_names_and_aliases_are_listed() -> None:
    async with rig(Servers(a=native()), "chatglm2", EXTRA) as house:
        call = await get(house, "/v1/models")
    assert call.header("content-type") == "application/json"
    assert call.json["object"] == "list"
    assert [entry["id"] for entry in call.json["data"]] == ["m", "gpt-3.5-turbo", "THUDM/m", "other"]
    for entry in call.json["data"]:
        assert set(entry) == {"id", "object", "created", "owned_by"}
        assert entry["object"] == "model"
        assert isinstance(entry["created"], int)


async def test_created_does_not_change_from_one_request_to_the_next() -> None:
    async with rig(Servers(a=native()), "chatglm2", EXTRA) as house:
        first, second = [await get(house, "/v1/models") for _ in range(2)]
    assert first.body == second.body


@pytest.mark.parametrize("name", ["m", "gpt-3.5-turbo", "THUDM/m", "other"])
@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_a_single_entry_is_the_one_of_the_list(name: str, prefix: str) -> None:
    async with rig(Servers(a=native()), "chatglm2", EXTRA) as house:
        call = await get(house, f"{prefix}/models/{name}")
        listed = (await get(house, "/v1/models")).json["data"]
    assert call.json in listed
    assert call.json["id"] == name


@pytest.mark.parametrize("name", ["nobody", "M", "m/x", "../m"])
async def test_an_unknown_model_is_a_404(name: str) -> None:
    async with rig(Servers(a=native()), "chatglm2", EXTRA) as house:
        call = await get(house, f"/v1/models/{name}")
    assert call.status == 404
    assert (call.error["code"], call.error["param"]) == ("model_not_found", "model")


async def test_a_key_sees_only_the_models_it_may_use() -> None:
    async with rig(Servers(a=native()), "chatglm2", EXTRA) as house:
        listed = await get(house, "/v1/models", "sk-one-model")
        hidden = await get(house, "/v1/models/m", "sk-one-model")
        unknown = await get(house, "/v1/models/nobody", "sk-one-model")
    assert [entry["id"] for entry in listed.json["data"]] == ["other"]
    assert (hidden.status, hidden.body) == (unknown.status, unknown.body)


async def test_without_a_key_nothing_is_listed() -> None:
    async with rig(Servers(a=native()), "chatglm2", EXTRA) as house:
        call = await house.get("/v1/models")
    assert call.status == 401


async def test_a_list_is_accounted_for_as_one() -> None:
    async with rig(Servers(a=native()), "chatglm2", EXTRA) as house:
        await get(house, "/v1/models")
    (line,) = house.access
    assert (line["door"], line["tenant"], line["outcome"]) == ("models", "all", "ok")
