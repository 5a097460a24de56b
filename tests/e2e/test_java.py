"""Java's own HTTP client, which offers `Upgrade: h2c` with every first request."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.stack import threaded

BODY = '{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
SOURCE = """
import java.net.URI;
import java.net.http.*;
import java.util.concurrent.Flow;

public class Client {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        byte[] body = args[1].getBytes();
        HttpRequest.BodyPublisher[] kinds = {
            HttpRequest.BodyPublishers.ofByteArray(body),
            HttpRequest.BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(body)),
        };
        for (int turn = 0; turn < 4; turn++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(args[0] + "/v1/chat/completions"))
                .header("Content-Type", "application/json").POST(kinds[turn % 2]).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.version());
        }
    }
}
"""


@pytest.mark.skipif(
    shutil.which("javac") is None, reason="no JDK is installed here: java's client is not tried"
)
def test_the_http_client_of_java_in_its_default_is_answered(tmp_path: Path) -> None:
    source = tmp_path / "Client.java"
    source.write_text(SOURCE)
    with threaded("openai") as one:
        command = [shutil.which("java") or "java", str(source), one.url, BODY]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert ended.stdout.splitlines() == ["200 HTTP_1_1"] * 4, ended.stderr
