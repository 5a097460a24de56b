"""The HTTP API of the data plane. Starlette's types end here.

`routes`: the table of paths, and `paths` what a mistyped one was meant to be; `request_context`: what is
known of one request; `middleware`: around every request: request id, receipt, errors; `door_context`: what
all doors work with; it authenticates, finds the model and reads bodies; `body`: reads request bodies within
their limits; `memory_budget`: the budget of bytes for all requests; `offload`: the thread for large bodies;
`stream`: the life of one streamed response; `whole`: answers a request whole; `responses`: the ASGI
messages of responses; `client_guard`: cancels a request whose client has left; `lifecycle`: what a shutdown
tells requests; `browsers`: which names and web pages are served, and CORS; `ids`: makes ids; `doors`: one
endpoint per file.

Rule: A door contains no streaming logic: it makes a `Call` and supplies a `Writer`.
"""
