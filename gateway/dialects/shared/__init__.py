"""What several dialects use. Pure.

`folding`: a conversation as question-and-answer pairs; `fitting`: makes a conversation fit the context;
`counting`: estimates of prompt tokens; `budget`: how long an answer may be, and why it ended;
`budget_cutter`: cuts at that limit; `allowed`: values that a server takes; `losses`: what a request loses;
`pictures`: image parts; `prompt_history`: the `POST /` format; `v3_messages`: messages of ChatGLM3;
`v3_tools`: its tools; `v3_stream`: its streams; `glm4_calls`: tool calls of GLM-4; `leading_whitespace`:
whitespace before an answer; `openai_like`: chunks of OpenAI-like servers as typed events; `reading`: their
event streams, from bytes; `passing`: streams that pass as bytes; `answering`: whole answers that pass;
`rewriting`: members that must be changed; `chunk_templates`: the constant parts of chunks; `state`: what
chunks mean: finish, calls, usage; `calls`: one normaliser of tool calls; `finish_reasons`: spellings of
finish reasons; `refusals`: what a backend's error means to the client; `reports`: errors in any form;
`framing`: events of a stream, in whatever framing; `waits`: how long a busy server asks to be left alone;
`wordings`: the words by which errors are known.

Rule: May import `dialects.base` and `formats`, never a dialect.
"""
