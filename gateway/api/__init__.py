"""The HTTP face: one file a door. Starlette's types stop here.

`chat` and `native` are doors to the relay, both a `Door`; `models` and `health` answer by themselves.
`middleware` wraps all of them: request ids, standing headers, errors that nobody caught. `body` reads
requests, `replies` writes answers and event streams, `leaving` notices clients that go.
"""
