"""Code that several dialects share. Pure.

Requests: `folding` turns a conversation into question-and-answer pairs; `fitting` makes a conversation fit
the context; `counting` estimates prompt tokens; `budget` computes how long an answer may be, and why it
ended; `budget_cutter` cuts an answer at that limit; `allowed` holds the values that a server accepts;
`losses` names the parameters that a backend cannot honour; `pictures` checks image parts; `prompt_history`
is the `POST /` format; `v3_messages` and `v3_tools` write messages and tools for ChatGLM3.

Answers: `openai_like` reads chunks of OpenAI-like servers as typed events; `reading` reads their event
streams from bytes; `passing` passes streams on as bytes; `answering` reads complete answers; `rewriting`
changes members where a rule requires it; `chunk_templates` holds the constant parts of chunks; `state`
keeps what chunks mean (finish, calls, usage); `calls` normalises tool calls; `finish_reasons` maps finish
reasons; `framing` reads events with unusual framing; `v3_stream` reads ChatGLM3's streams; `glm4_calls`
reads GLM-4's tool calls; `leading_whitespace` removes whitespace before an answer.

Errors: `refusals` maps a backend's failure to an error; `reports` parses reports of failures; `waits` reads
how long to wait for a busy server; `wordings` holds the wordings by which failures are recognised.

Rule: May import `dialects.base` and `formats`, never a dialect.
"""
