"""The endpoints, one file each.

`chat`: `POST /v1/chat/completions`; `native`: `POST /`, ChatGLM-6B's own API; `models`: `GET /v1/models`;
`health`: `/livez` and `/readyz`.

Rule: Doors do not import one another.
"""
