"""The program LangChain's users wrote for ChatGLM3: class ChatGLM3 in an LLMChain, with today's imports.

Run with the python of the environment `langchain`; needs nothing else.

    python langchain_chatglm3.py --url http://127.0.0.1:8000/v1/chat/completions --model chatglm3-6b
                                 [--key KEY] [--prompt TEXT]

`--url` is given to the class as endpoint_url. The class sends no credentials and takes no headers, so a key
is written into the URL (http://user:KEY@host), which its HTTP client turns into Basic authentication.
It opens with two assistant messages and asks for 80,000 tokens, as those programs do. Prints one JSON object:

    {sdk, question, text}                     the answer exactly as the chain returned it
    {sdk, question, error: {class, message}}  where the class raised its ValueError (any status but 200)

sdk is the version of langchain-community. Anything else that goes wrong is a traceback and an exit status of
1.
"""

import argparse
import importlib.metadata
import json
import sys
from typing import Any
from urllib.parse import quote, urlsplit

from langchain_classic.chains import LLMChain
from langchain_community.llms.chatglm3 import ChatGLM3
from langchain_core.messages import AIMessage
from langchain_core.prompts import PromptTemplate

QUESTION = "北京和上海两座城市有什么不同？"


def ask(url: str, model: str, question: str) -> str:
    llm = ChatGLM3(
        endpoint_url=url,
        model=model,
        max_tokens=80000,
        prefix_messages=[
            AIMessage(content="我将从美国到中国来旅游，出行前希望了解中国的城市"),
            AIMessage(content="欢迎问我任何问题。"),
        ],
        top_p=0.9,
    )
    prompt = PromptTemplate.from_template("{question}")
    answer: str = LLMChain(prompt=prompt, llm=llm).invoke({"question": question})["text"]
    return answer


def with_key(url: str, key: str) -> str:
    """Write the key into the URL as its password."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"user:{quote(key, safe='')}@{parts.netloc}").geturl() if key else url


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--prompt", default=QUESTION)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    version = importlib.metadata.version("langchain-community")
    report: dict[str, Any] = {"sdk": version, "question": arguments.prompt}
    try:
        report["text"] = ask(with_key(arguments.url, arguments.key), arguments.model, arguments.prompt)
    except ValueError as error:
        report["error"] = {"class": type(error).__name__, "message": str(error)}
    json.dump(report, sys.stdout, ensure_ascii=True)


if __name__ == "__main__":
    main()
