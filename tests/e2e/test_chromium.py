"""Real Chromium: a page of an allowed origin uses the gateway, streams included; a page of another cannot."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.simulator import Options
from tests.support.stack import Stack, threaded

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
KEYS = '[[keys]]\nname = "team"\nkey = "sk-12345678"\n'
WAIT = 45
"""Seconds for a browser to start and ask; it has hung if it takes longer."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NOTICE: chromium is not installed")

PAGE = """<!doctype html><meta charset="utf-8"><title>test</title><script>
const url = %(url)s, told = {};
const headers = {"content-type": "application/json", "x-stainless-lang": "js"};
headers.authorization = "Bearer sk-12345678";
const body = more => JSON.stringify({model: "m", messages: [{role: "user", content: "hi"}], ...more});
const attempt = async (name, work) => {
  try { told[name] = await work(); } catch (error) { told[name] = "failed: " + error.name; }
};
const post = (path, more = {}, options = {}) =>
  fetch(url + path, {method: "POST", headers, body: body(more), ...options});
(async () => {
  await attempt("models", async () => (await (await fetch(url + "/v1/models", {headers})).json()).data[0].id);
  await attempt("whole", async () => {
    const answer = await post("/v1/chat/completions");
    const said = (await answer.json()).choices[0].message.content;
    const [backend, id] = ["x-gateway-backend", "x-request-id"].map(name => answer.headers.get(name));
    return [answer.status, said, backend, id !== null];
  });
  await attempt("error", async () => {
    const answer = await post("/v1/chat/completions", {model: "nothing"});
    return [answer.status, (await answer.json()).error.code];
  });
  await attempt("stream", async () => {
    const answer = await post("/v1/chat/completions", {stream: true});
    const reader = answer.body.getReader(), decoder = new TextDecoder();
    let text = "", pieces = 0;
    for (;;) {
      const {done, value} = await reader.read();
      if (done) break;
      text += decoder.decode(value); pieces += 1;
    }
    return [answer.status, text.trimEnd().endsWith("data: [DONE]"), pieces > 1];
  });
  await attempt("plain", async () => {
    const plain = {method: "POST", mode: "no-cors", body: JSON.stringify({prompt: "hi"})};
    return (await fetch(url + "/", plain)).type;
  });
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
</script>"""


class Site:
    """A web site on a port of its own: one page, and what it tells."""

    def __init__(self) -> None:
        self.page = ""
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(site.page.encode())

            def do_POST(self) -> None:
                site.told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.answer(b"")

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"


@contextlib.contextmanager
def site() -> Iterator[Site]:
    one = Site()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        thread.join()
        one.server.server_close()


def seen(one: Site, url: str, folder: Path) -> dict[str, Any]:
    """Open the page in a browser with an empty profile; give what it told."""
    one.page = PAGE % {"url": json.dumps(url)}
    browser = subprocess.Popen(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}", f"{one.origin}/"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return one.told.get(timeout=WAIT)
    finally:
        browser.terminate()
        browser.wait(20)


def let_in(origin: str, stack: Stack) -> None:
    """Reload with this origin in `server.cors_origins`."""
    server = stack.settings.server.model_copy(update={"cors_origins": (origin,)})
    settings = stack.settings.model_copy(update={"server": server})
    done = threading.Event()

    def work() -> None:
        stack.run.reconfigure(settings)
        done.set()

    stack.loop.call_soon_threadsafe(work)
    assert done.wait(20)


def options() -> Options:
    return Options(dialect="openai", reply="one two three four five", speed=200)


@pytest.mark.parametrize("keys", [KEYS, ""], ids=["with-keys", "without"])
def test_a_page_of_an_allowed_origin_uses_every_door(tmp_path: Path, keys: str) -> None:
    with site() as page, threaded(options(), keys) as stack:
        let_in(page.origin, stack)
        told = seen(page, stack.url, tmp_path)
        assert told["models"] == "m"
        assert told["whole"] == [200, "one two three four five", "gpu-0", True]
        assert told["error"] == [404, "model_not_found"]
        assert told["stream"] == [200, True, True]


def test_a_page_of_another_origin_cannot_use_a_keyless_gateway(tmp_path: Path) -> None:
    with site() as page, threaded(options()) as stack:
        told = seen(page, stack.url, tmp_path)
        assert {told[name] for name in ("models", "whole", "error", "stream")} == {"failed: TypeError"}
        assert told["plain"] == "opaque"
        assert stack.only.requests == []
