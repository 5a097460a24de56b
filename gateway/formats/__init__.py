"""Public formats as values. Pure: bytes in, values out, and back.

`openai`: OpenAI's chat completions; `native`: ChatGLM's own `POST /`; `events`: the pieces of an answer,
produced by every dialect and written by every door; `writer`: what a door writes an answer with;
`operation`: what can be asked of a model; `waiting`: what a stream without content is told; `sse`: event
streams; `jsontext`: strict JSON reading, safe writing; `structured`: JSON that a model wrote as text;
`large`: reads and writes large bodies in short steps; `splice`: changes one member of JSON in its bytes;
`lenient`: accepts what clients send although the API has it otherwise; `checked`: classes that pydantic
checks without being its models; `validation_messages`: problems of a body in plain words; `unread_members`:
members of a request that nothing reads; `limits`: maxima of everything a client decides; `token_counts`:
estimates of tokens; `fingerprint`: length, end and digest of an answer, without its text; `headers`: the
two forms of response headers.

Rule: Imports nothing of the gateway but `errors` and `config`.
"""
