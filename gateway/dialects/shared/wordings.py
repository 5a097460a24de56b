"""Tables of the wordings and codes with which model servers report failures.

A comment names the servers that use a group of patterns. The patterns are searched in texts of bounded
length and have no nested repetition. The cost of a search is therefore linear in the length of the text,
even if a client has put text of its own into an error message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

Fault: TypeAlias = Literal["context", "filter", "request", "configuration", "busy", "server"]
"""The cause of a failure.

- `context`: the prompt is too long.
- `filter`: a content filter refused the request or the answer.
- `request`: the request is wrong.
- `configuration`: the gateway's settings for the backend are wrong (key, path or model name).
- `busy`: the backend has too much work.
- `server`: the backend has failed.
"""


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


OVERFLOW = _any_of(
    # OpenAI, vLLM, FastChat, llama-cpp-python, DeepSeek, OpenRouter, xAI, Mistral
    r"maximum (?:context|prompt|sequence|input|model) length",
    r"context[_ ](?:length|window|size|limit)[_ ](?:is |was |has been )?exceeded",
    r"exceed(?:s|ed|ing)? (?:the |its |your )?"
    r"(?:model'?s? |maximum |max |available |total |configured |input ){0,3}"
    r"(?:context|token limit|max(?:imum)?[_ ](?:length|seq|model|tokens)|sequence length|input length)",
    r"reduce (?:the length of (?:the|your|either)|your prompt)",
    r"decoder prompt .{0,80}longer than the maximum",
    r"max_tokens must be at least 1, got -",
    r"max_model_len|max_seq_len",
    # SGLang, LMDeploy
    r"longer than the (?:model'?s )?(?:context length|maximum (?:model )?length)",
    r"exceeds the maximum allowed (?:input )?length",
    r"INPUT_LENGTH_ERROR|session_len",
    # llama.cpp
    r"exceed_context_size|(?:context|max context) size|exceeds? n_ctx|n_ctx_(?:slot|per_seq|seq)",
    r"input is too (?:large|long) (?:to process|for)",
    # Ollama, LM Studio
    r"input length exceeds",
    r"(?:greater than|longer than|exceed(?:s|ed)?|context) the (?:max )?context (?:length|window)",
    r"(?:context the overflows|reached context length|loaded with context length)",
    # Text Generation Inference, transformers
    r"inputs` (?:tokens|must have)",
    r"input length of input_ids",
    # Anthropic, Gemini, Bedrock, Moonshot, Cohere, Azure, DashScope
    r"(?:prompt|input|message|conversation|request)s? (?:is |are |was )?too long",
    r"context limit|token limit exceeded|model token limit|token count .{0,40}exceeds",
    r"maximum number of tokens allowed|number of tokens in the prompt",
    r"too large for model with",
    r"input tokens exceed|too many (?:input |prompt )tokens",
    r"exceeds the limit of \d{1,9} tokens",
    r"range of input length should be",
    r"prompt (?:length|tokens?) (?:\d{1,9} )?(?:is |exceeds?|greater)",
    r"prompt exceeds max length",
    # more wordings of vLLM, llama.cpp and TensorRT-LLM
    r"too long to fit into the model|n_keep\b|larger than (?:the )?(?:max(?:imum)? )?context",
    r"exceeds? (?:the )?max_(?:num|total|input)_tokens",
    # MiniMax, Baidu
    r"context window exceeds|max(?:imum)? input (?:characters|tokens)",
    r"(?:sequence|token|prompt|input) length exceeds (?:the )?limit",
    r"number of tokens [^\n]{0,20}exceeds? the limit",
    r"tokens in request more than max|max message tokens|tokens? too long|context window is \d",
    # servers with Chinese messages
    r"prompt ?超长|上下文.{0,8}(?:超|过长|不足)",
    r"(?:超过|超出|大于)了?.{0,12}(?:上下文|最大长度|长度限制|最大token|token限制|token数)",
    r"(?:输入|文本|内容|对话|提示词|消息|prompt).{0,8}(?:过长|超长|太长|长度超)",
    r"tokens? ?(?:数量?|长度)?(?:超过|超出|超限)",
)  # fmt: skip

NO_OVERFLOW = _any_of(
    r"tokens per (?:minute|min|day|hour)|\bTPM\b|rate limit|try again (?:in|later)|please wait",
    r"string too long\. Expected a string with maximum length",
)
"""Wordings about a rate limit or one field that would otherwise match `OVERFLOW`."""

FILTERED = _any_of(
    r"content[_ ](?:filter|policy|management policy)|content_policy_violation|data_inspection_failed",
    r"(?:unsafe|sensitive|inappropriate) content|safety system",
    r"敏感(?:内容|词)|不安全(?:内容|或)|内容(?:安全|审核|违规)",
)

NO_MODEL = _any_of(
    r"\bmodel[: `'\"]{1,3}[\w./:@+-]{1,100}[`'\",:;]{0,3} "
    r"(?:does not exist|not found|is (?:unknown|not (?:available|loaded)))",
    r"\bmodel (?:does not exist|not exist|not found)|(?:no such|unknown) model|模型不存在",
    r"only [^\n]{0,200} allowed now, your model",  # FastChat
)

UNCONFIGURED = _any_of(
    NO_MODEL.pattern,
    r"(?:incorrect|invalid|wrong|missing|expired|no) api[ _-]?key",
    r"api[ _-]?key (?:not valid|is invalid|not found)",
    r"access token (?:is )?(?:invalid|expired)|invalid (?:authentication|access token)",
    r"unauthorized|authentication failed|http request (?:was sent )?to (?:an )?https",
    r"身份验证失败|无效的令牌|令牌(?:已过期|无效)",
    r"insufficient (?:balance|quota|credits?)|exceeded your current quota|欠费|余额不足",
)

REQUEST = _any_of(
    # chat templates, in llama.cpp, vLLM, TGI, LM Studio, Ollama
    r"roles? must alternate|alternate user|must alternate between",
    r"jinja|raise_exception|template ?error|chat template|at row \d{1,6}, column \d",
    r"system (?:role|message) (?:is )?not supported",
    r"only (?:user|assistant|system)[a-z, ]{0,60} roles? (?:is|are) ",
    r"(?:unexpected|invalid|unknown|unsupported) (?:message )?role|role .{0,40}(?:is not|not) supported",
    r"(?:first|last|final) message must|last message .{0,20}(?:must|should)|must (?:start|end) with a user",
    r"cannot have 2 or more assistant messages|assistant response prefill|no user query",
    r"(?:missing|invalid|expected|unsupported) ['\"]"
    r"(?:messages?|role|content|tool_calls?|tools|type|text|name)\b",
    r"single tool-calls at once|tool call ids? should be|same number of function calls",
    # images and other content parts
    r"(?:image|audio|video|vision|multi-?modal|file)s?(?: inputs?| content)? (?:is|are) not supported",
    r"(?:not|n't) support (?:\w{1,20} ){0,2}(?:image|audio|video|vision|multi-?modal|file)",
    r"not (?:a )?multimodal|no multimodal|mmproj|support image input",
    r"(?:unsupported|unknown|invalid|unexpected) (?:content|part|chunk)(?:\[\])?(?:\.type| ?part| type)",
    r"(?:load|decode|download|open|process|identify|fetch)(?:ing)? (?:the )?(?:image|picture|audio|video)",
    r"(?:invalid|broken|corrupt(?:ed)?|bad|unsupported) (?:image|picture|base64|data url)|image[_ ]url",
    r"invalid (?:base64|url) value|image or audio file",
    r"UnidentifiedImageError|incorrect padding|base64",
    # tools and structured output
    r"tool (?:call )?type|missing tool |custom grammar constraints",
    r"tool_choice|tool choice|(?:missing|invalid|unsupported|failed to parse) (?:the )?tools?\b",
    r"tools? param|requires --jinja|--tool-call-parser|--enable-auto-tool-choice",
    r"(?:not|n't) support (?:tool|function)",
    r"reasoning[_ ]?(?:format|effort)|enable_thinking|chat_template_kwargs",
    r"response_format|grammar|json[_ ]schema|guided_\w|structured output",
    # parameter values
    r"json\.exception|failed to parse messages|failed to parse request|failed to parse the request",
    r"\b(?:temperature|top_?[pk]|min_p|typical_p|(?:repetition|presence|frequency|repeat|length)_penalty|"
    r"max_(?:new_)?(?:completion_)?tokens|min_tokens|best_of|top_logprobs|logprobs|stop_token_ids|"
    r"logit_bias|n_predict)\b[`'\"=(). \w-]{0,40}?\b"
    r"(?:must be|must have|should be|has to be|cannot be|out of range)",
    r"(?<![\w'])[`'\"]?(?:n|stop|seed|penalty)[`'\"]?(?: \([^()]{0,20}\))? (?:must|should|has to|cannot) ",
    r"unsupported param|top_logprobs requires",
    r"(?:unknown|unrecognized|unexpected|invalid) (?:param|parameter|argument|field|value for)",
    r"only one completion choice|validation errors?\b|input should be|field required|input validation error",
    r"invalid request|bad ?request",
)  # fmt: skip

BUSY = _any_of(
    r"overloaded|queue is full|too many (?:concurrent )?requests|rate[ _-]?limit|request limit reached",
    r"no (?:available|free) (?:slot|worker)",
    r"loading model|model is (?:still )?loading|并发数?过高|频率过高|请求过多|访问量过大",
)

BIGMODEL: Mapping[int, Fault] = MappingProxyType(
    {
        **dict.fromkeys((1000, 1001, 1002, 1003, 1004, 1110, 1111, 1112, 1113, 1120, 1121), "configuration"),
        **dict.fromkeys((1211, 1220, 1221, 1222, 1309, 1311, 1313), "configuration"),
        **dict.fromkeys((1210, 1212, 1213, 1214, 1215, 1231), "request"),
        **dict.fromkeys((1300, 1301), "filter"),
        **dict.fromkeys((1302, 1303, 1304, 1305, 1308, 1310, 1312), "busy"),
        **dict.fromkeys((500, 1200, 1230, 1234), "server"),
        1261: "context",
    }
)  # fmt: skip
"""bigmodel's codes: accounts, parameters, content filter, rate limits, its own failures, prompt length."""

FASTCHAT: Mapping[int, Fault] = MappingProxyType(
    {
        40303: "context",
        **dict.fromkeys((40001, 40302), "request"),
        40301: "configuration",
        **dict.fromkeys((40101, 40102, 40103), "configuration"),
        **dict.fromkeys((42901, 42902, 42903), "busy"),
    }
)
"""FastChat's codes that say more than the status in their first three digits."""

MINIMAX: Mapping[str, Fault] = MappingProxyType(
    {
        **dict.fromkeys((f"base_resp {code}" for code in (1002, 1039, 1041, 2045, 2056)), "busy"),
        **dict.fromkeys((f"base_resp {code}" for code in (1004, 1008, 2049)), "configuration"),
        **dict.fromkeys((f"base_resp {code}" for code in (1026, 1027)), "filter"),
        **dict.fromkeys((f"base_resp {code}" for code in (1000, 1001, 1013, 1024, 1033)), "server"),
    }
)
"""Unambiguous codes of MiniMax's `base_resp`: rate limits, accounts, filters, its own failures."""

FILTER_NAMES = frozenset(
    {"content_filter", "content_policy_violation", "data_inspection_failed", "sensitive"}
)
OVERFLOW_NAMES = frozenset(
    {
        "context_length_exceeded",
        "exceed_context_size_error",
        "model_context_window_exceeded",
        "context_window_exceeded",
    }
)
ACCOUNT_NAMES = frozenset(
    {"insufficient_quota", "billing_error", "model_not_found", "invalid_api_key", "authentication_error"}
    | {"arrearage", "invalidapikey"}  # DashScope
)

CONTEXT_COUNTS: Sequence[re.Pattern[str]] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\d \+ \d{1,12} > (\d{1,12})",
        r"maximum (?:context |prompt |sequence |model |allowed |input )?length (?:is|of|\() ?(\d[\d,]{0,12})",
        r"context (?:size|window|length|limit)(?: is| of| \(|:| of only)? ?(\d[\d,]{0,12})",
        r"(?:max_seq_len|max_model_len|n_ctx) ?(?:is|of|=|:|\()? ?(\d[\d,]{0,12})",
        r"must be <= ?(\d[\d,]{0,12})",
        r"must have less than (\d[\d,]{0,12}) tokens",
        r"tokens > (\d[\d,]{0,12}) maximum",
        r"maximum number of tokens allowed \(?(\d[\d,]{0,12})",
        r"(?:token limit|limit of|limit is)[: ]{1,2}(\d[\d,]{0,12})",
        r"model with (\d[\d,]{0,12}) maximum context",
        r"is set to (\d[\d,]{0,12})",
        r"should be \[1, ?(\d[\d,]{0,12})\]",
        r"exceeds limit of (\d[\d,]{0,12})",
        r"max(?:imum)? (?:input |sequence |prompt |total )?length:? (?:is )?(\d[\d,]{0,12})",
        r"length for this model \((?:\d{1,12} > )?(\d[\d,]{0,12})",
        r"(?:session_len|max_(?:num|total|input)_tokens) \(?(\d[\d,]{0,12})",
        r"\d > (\d{1,12})",
        r"\bmax(?: tokens)?:? (\d[\d,]{0,12})",
        r"exceeds the limit (\d[\d,]{0,12})",
        r"限制(?:为|是)?(\d[\d,]{0,12})",
    )
)
"""Patterns whose group is the context length in tokens."""

TOKEN_COUNTS: Sequence[re.Pattern[str]] = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"requested (?:about |a total of )?(\d[\d,]{0,12}) tokens",
        r"request(?: has| contains)? \(?(\d[\d,]{0,12}) (?:input )?tokens",
        r"resulted in (\d[\d,]{0,12}) tokens",
        r"(?:input|prompt|request) \((?:length )?(\d[\d,]{0,12})",
        r"(?:input length|prompt length|total length|length) \(?(\d[\d,]{0,12}) ?(?:tokens)?\)",
        r"(?:contains|has|given:?|prompt) (\d[\d,]{0,12}) (?:`inputs` )?tokens?",
        r"too long: (\d[\d,]{0,12}) tokens",
        r"given: (\d[\d,]{0,12})",
        r"input token count \((\d[\d,]{0,12})\)",
        r"requested tokens \((\d[\d,]{0,12})\)",
        r"input_ids is (\d[\d,]{0,12})",
        r"first (\d[\d,]{0,12}) tokens when",
        r"prefill (\d[\d,]{0,12}) tokens",
        r"^(?:the )?(?:input |tokens |prompt |sequence ){1,2}length:? (\d[\d,]{0,12})",
        r"number of tokens \((\d[\d,]{0,12})\)",
        r"(\d{1,12}) > \d",
        r"n_keep \((\d[\d,]{0,12})\)",
    )
)
"""Patterns whose group is the length of the request in tokens."""
