"""Pictures in a message, checked for their form before a server has to open them.

GLM-4V's server decodes `data:image/jpeg;base64,` URLs and fetches all others by HTTP; whatever it cannot
open is a bare 500. Pillow finds a picture's format from its bytes, so pictures of other types are sent under
the one media type that the server decodes. Source: THUDM/GLM-4 `basic_demo/glm4v_server.py`.
"""

from __future__ import annotations

import binascii
import re
from typing import Any
from urllib.parse import urlsplit

from gateway.errors import BadRequest

JPEG = "data:image/jpeg;base64,"
"""The only beginning of a data URL that the server decodes."""

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
"""Characters of base64 that hold the first bytes of a picture, by which its format is told."""
_UNPRINTED = re.compile(r"[\s\x00-\x20\x7f]")


def checked_part(part: dict[str, Any], where: str) -> dict[str, Any]:
    """An `image_url` part as the server takes it. Raises `BadRequest` that names the member."""
    image = part.get("image_url")
    param = f"{where}.image_url.url"
    if isinstance(image, str):  # an old form of the same
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
    if len(payload.split(None, 1)) > 1:  # lines of base64, as in a mail
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
