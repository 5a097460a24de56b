"""The program LangChain's users wrote for ChatGLM-6B: class ChatGLM in an LLMChain, with today's imports.

Run with the python of the environment `langchain`; needs nothing else.

    python langchain_chatglm.py --url http://127.0.0.1:8000 [--key KEY] [--prompt TEXT] [--model IGNORED]

`--url` is the root, given to the class as endpoint_url: it posts prompt and history there. The class knows no
models, so `--model` is taken only to let all client programs be called alike. It sends no credentials and
takes no headers, so a key is written into the URL (http://user:KEY@host), which its HTTP client turns into
Basic authentication. Prints one JSON object: `sdk` (version of langchain-community), `question` and

    stateless     {text}: one question with the history set by hand, 80,000 tokens asked for
    with_history  {texts, history}: two questions in a row; history is what the class kept of the second
                  answer

A part for which the class raised its ValueError (any status but 200) is {error: {class, message}} instead.
Anything else that goes wrong is a traceback and an exit status of 1.
"""

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

from langchain_classic.chains import LLMChain
from langchain_community.llms import ChatGLM
from langchain_core.prompts import PromptTemplate

Json = dict[str, Any]

QUESTION = "北京和上海两座城市有什么不同？"
FOLLOW_UP = "哪一座更大？"


def chat(url: str, **options: Any) -> ChatGLM:
    return ChatGLM(
        endpoint_url=url,
        max_token=80000,
        history=[["我将从美国到中国来旅游，出行前希望了解中国的城市", "欢迎问我任何问题。"]],
        top_p=0.9,
        model_kwargs={"sample_model_args": False},
        **options,
    )


def stateless(url: str, question: str) -> Json:
    prompt = PromptTemplate.from_template("{question}")
    chain = LLMChain(prompt=prompt, llm=chat(url))
    return {"text": chain.invoke({"question": question})["text"]}


def with_history(url: str, question: str) -> Json:
    llm = chat(url, with_history=True)
    texts = [llm.invoke(question), llm.invoke(FOLLOW_UP)]
    return {"texts": texts, "history": llm.history}


def attempt(job: Callable[[str, str], Json], url: str, question: str) -> Json:
    try:
        return job(url, question)
    except ValueError as error:
        return {"error": {"class": type(error).__name__, "message": str(error)}}


def with_key(url: str, key: str) -> str:
    """Write the key into the URL as its password."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"user:{quote(key, safe='')}@{parts.netloc}").geturl() if key else url


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--prompt", default=QUESTION)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    url = with_key(arguments.url, arguments.key)
    report = {
        "sdk": importlib.metadata.version("langchain-community"),
        "question": arguments.prompt,
        "stateless": attempt(stateless, url, arguments.prompt),
        "with_history": attempt(with_history, url, arguments.prompt),
    }
    json.dump(report, sys.stdout, ensure_ascii=True)


if __name__ == "__main__":
    main()
