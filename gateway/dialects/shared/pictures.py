"""Checks the pictures in a message before they are sent to a server.

GLM-4V's server decodes URLs that begin with `data:image/jpeg;base64,` and fetches all other URLs by HTTP.
It answers with an unspecific 500 if it cannot open a picture. Pillow detects the format of a picture from
its bytes, so pictures of other types are sent under the one media type that the server decodes. Source:
THUDM/GLM-4 `basic_demo/glm4v_server.py`.
"""

from __future__ import annotations

import binascii
import re
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import BadRequest

JPEG = "data:image/jpeg;base64,"
"""The only prefix of a data URL that the server decodes."""

_DATA = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[\w.+-]*)*;base64,", re.IGNORECASE | re.ASCII)
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_FORMATS = (
    re.compile(rb"\xff\xd8\xff"),  # JPEG
    re.compile(rb"\x89PNG\r\n\x1a\n"),
    re.compile(rb"GIF8[79]a"),
    re.compile(rb"RIFF....WEBP", re.DOTALL),
    re.compile(rb"BM"),
    re.compile(rb"II\*\x00|MM\x00\*"),  # TIFF
)
_HEAD = 64
"""Number of base64 characters that hold the first bytes of a picture, which identify its format."""
_UNPRINTED = re.compile(r"[\s\x00-\x20\x7f]")


def checked_part(part: dict[str, Any], where: str) -> dict[str, Any]:
    """Return an `image_url` part in the form that the server accepts.

    Raises `BadRequest` with the member's name.
    """
    image = part.get("image_url")
    param = f"{where}.image_url.url"
    if isinstance(image, str):  # a legacy form
        image = {"url": image}
    url = image.get("url") if isinstance(image, dict) else None
    if not isinstance(url, str) or not isinstance(image, dict):
        raise BadRequest(f"{param} is required, as a text.", param=param)
    sent = _data(url, param) if url[:5].lower() == "data:" else _address(url, param)
    return {**part, "image_url": {**image, "url": sent}}


def _data(url: str, param: str) -> str:
    found = _DATA.match(url)
    if found is None:
        raise BadRequest(f"{param} must begin with data:image/TYPE;base64, for a picture.", param=param)
    payload = url[found.end() :]
    if len(payload.split(None, 1)) > 1:  # base64 in several lines, as in MIME
        payload = "".join(payload.split())
    payload = payload.strip()
    _check_base64(payload, param)
    unpadded = payload.rstrip("=")
    return JPEG + unpadded + "=" * (-len(unpadded) % 4)


def _check_base64(payload: str, param: str) -> None:
    strange = payload.encode(errors="replace").translate(None, _ALPHABET)
    length = len(payload) - len(strange)
    if strange not in (b"", b"=", b"==") or not payload.endswith(strange.decode()) or length % 4 == 1:
        raise BadRequest(f"{param} holds a picture that is not base64.", param=param)
    head = binascii.a2b_base64(payload[: min(_HEAD, length // 4 * 4)])
    if not any(known.match(head) for known in _FORMATS):
        raise BadRequest(
            f"{param} holds no picture that this model reads: JPEG, PNG, GIF, WebP, BMP or TIFF.", param=param
        )


def _address(url: str, param: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or _UNPRINTED.search(url):
        raise BadRequest(f"{param} must be an http or https address, or a data URL.", param=param)
    return url
