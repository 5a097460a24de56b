"""Formats as values, pure: bytes in, bytes out, no I/O.

`jsontext` reads JSON strictly and writes it safely; `openai` holds the chat request and builds answers,
chunks and errors; `events` are the pieces of an answer that every dialect speaks and every door
writes; `sse` splits and frames event streams; `native` is ChatGLM's own `POST /` shape; `tokens`
estimates sizes. Dialects, abilities, the relay and the doors all meet here.
"""
