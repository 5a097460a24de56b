from __future__ import annotations

import base64
from copy import deepcopy
from typing import Any

import pytest

from gateway.dialects.shared.pictures import JPEG, checked_part
from gateway.errors import BadRequest

HEADS = {
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "gif": b"GIF89a\x01\x00",
    "webp": b"RIFF\x24\x00\x00\x00WEBPVP8 ",
    "bmp": b"BM\x46\x00\x00\x00",
    "tiff": b"II*\x00\x08\x00\x00\x00",
}


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def url_of(url: Any) -> Any:
    return checked_part({"type": "image_url", "image_url": {"url": url}}, "messages[0].content[1]")[
        "image_url"
    ]["url"]


@pytest.mark.parametrize("kind", HEADS)
def test_picture_of_any_kind_is_sent_under_the_type_that_the_server_decodes(kind: str) -> None:
    data = coded(HEADS[kind] + b"x" * 300)
    assert url_of(f"data:image/{kind};base64,{data}") == JPEG + data


@pytest.mark.parametrize(
    "head", ["data:image/jpeg;charset=utf-8;base64,", "DATA:IMAGE/JPG;BASE64,", "data:;base64,"]
)
def test_every_form_of_a_data_url_is_understood(head: str) -> None:
    data = coded(HEADS["jpeg"])
    assert url_of(head + data) == JPEG + data


def test_missing_padding_and_line_breaks_are_corrected() -> None:
    data = coded(HEADS["png"] + b"1")
    assert data.endswith("=")
    assert url_of("data:image/png;base64," + data.rstrip("=")) == JPEG + data
    assert url_of(f"data:image/png;base64,{data[:8]}\r\n{data[8:]}\n") == JPEG + data


@pytest.mark.parametrize("url", ["https://example.com/a.png", "http://10.0.0.1:8080/x?y=1#z", "HTTPS://h/ä"])
def test_address_passes_as_it_is(url: str) -> None:
    assert url_of(url) == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "cat.jpg",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "http://",
        "https:///a.png",
        "http://h:99999/",
        "http://h:0/",
        "http://[::1/",
        "http://h/a b.png",
        "http://h/a\nb",
        "data:image/png,abc",
        "data:image/png;base64,",
        "data:image/png;base64,@@@@",
        "data:image/png;base64,iVBORw0KGgo=iVBORw0KGgo=",
        "data:image/png;base64,iVBORw0KGgoAA",
        "data:image/png;base64,ä" + coded(HEADS["png"]),
        "data:image/png;base64," + coded(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "data:text/plain;base64," + coded(b"not a picture at all"),
        "data:image/png;base64,=" + coded(HEADS["gif"]),
    ],
)
def test_what_the_server_could_not_open_is_refused_by_name(url: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        url_of(url)
    assert caught.value.param == "messages[0].content[1].image_url.url"


def test_members_beside_the_address_pass_and_the_part_itself_is_not_changed() -> None:
    image = {"url": "data:image/png;base64," + coded(HEADS["png"]), "detail": "low"}
    part: dict[str, Any] = {"type": "image_url", "image_url": image}
    kept = deepcopy(part)
    sent = checked_part(part, "w")
    assert part == kept
    assert sent["image_url"]["detail"] == "low"


def test_address_as_a_text_becomes_an_object() -> None:
    part = {"type": "image_url", "image_url": "https://h/a.png"}
    assert checked_part(part, "w") == {"type": "image_url", "image_url": {"url": "https://h/a.png"}}


@pytest.mark.parametrize("image", [None, [], 7, {"uri": "x"}])
def test_part_without_an_address_is_refused(image: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        checked_part({"type": "image_url", "image_url": image}, "w")
    assert caught.value.param == "w.image_url.url"
