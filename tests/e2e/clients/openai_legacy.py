"""The official OpenAI SDK before 1.0 (openai 0.28): module-level calls, dictionaries for answers.

Run with the python of the environment `openai0`; needs nothing else.

    python openai_legacy.py --url http://127.0.0.1:8000/v1 --model chatglm2-6b [--key KEY] [--prompt TEXT]

`--url` becomes openai.api_base unchanged. Prints one JSON object: `sdk` (its version) and

    chat    {id, object, model, role, text, finish_reason, usage};
            usage = {prompt_tokens, completion_tokens, total_tokens}
    stream  {ids, roles, deltas, text, finish_reasons, chunks}; ids without repeats, all in order of arrival
    error   ERROR = {class, status, code, param, message}: what asking for an unknown model raised, null if
            nothing

A job that the SDK ends with an error is {error: ERROR} instead. Anything else that goes wrong is a traceback
and an exit status of 1.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import openai

Json = dict[str, Any]


class Jobs:
    """What this client can do, a method a job; one object a run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        openai.api_base = arguments.url
        openai.api_key = arguments.key or "none"
        self.model: str = arguments.model
        self.options = {
            "messages": [{"role": "user", "content": arguments.prompt}],
            "request_timeout": arguments.timeout,
        }

    def chat(self) -> Json:
        answer = openai.ChatCompletion.create(model=self.model, **self.options)
        choice = answer["choices"][0]
        return {
            "id": answer["id"],
            "object": answer["object"],
            "model": answer["model"],
            "role": choice["message"]["role"],
            "text": choice["message"]["content"],
            "finish_reason": choice["finish_reason"],
            "usage": answer["usage"].to_dict_recursive(),
        }

    def stream(self) -> Json:
        chunks = list(openai.ChatCompletion.create(model=self.model, stream=True, **self.options))
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        deltas = [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]
        return {
            "ids": list(dict.fromkeys(chunk["id"] for chunk in chunks)),
            "roles": [choice["delta"]["role"] for choice in choices if choice["delta"].get("role")],
            "deltas": deltas,
            "text": "".join(deltas),
            "finish_reasons": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
            "chunks": len(chunks),
        }

    def error(self) -> Json | None:
        try:
            openai.ChatCompletion.create(model="no-such-model", **self.options)
        except openai.error.OpenAIError as error:
            return seen(error)
        return None


def seen(error: Any) -> Json:
    return {
        "class": type(error).__name__,
        "status": error.http_status,
        "code": error.code,
        "param": getattr(error, "param", None),
        "message": str(error),
    }


def attempt(job: Callable[[], Any]) -> Any:
    try:
        return job()
    except openai.error.OpenAIError as error:
        return {"error": seen(error)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--prompt", default="你好")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for one call")
    return parser.parse_args()


def main() -> None:
    jobs = Jobs(parse())
    report = {name: attempt(getattr(jobs, name)) for name in ("chat", "stream", "error")}
    json.dump({"sdk": openai.version.VERSION, **report}, sys.stdout, ensure_ascii=True)


if __name__ == "__main__":
    main()
