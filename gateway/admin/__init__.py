"""The pages of the admin plane. Keep this plane on loopback: it asks for no key.

`pages`: `GET /metrics` and `GET /version`.

Rule: May import everything below `api`; nothing but `compose` imports it.
"""
