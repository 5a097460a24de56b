"""The most of everything whose number or length a client decides, in one place.

What is not named here is bounded by the body: its bytes (`server.max_body`), its values and its nesting.
"""

from __future__ import annotations

MAX_DEPTH = 64
"""Levels of nesting in a body."""
MAX_VALUES = 20_000
"""Values in a body, counted by its commas and opening brackets: a chat of some 6,600 messages. It bounds the
members of `metadata`, of a schema, and of every object that has no bound of its own."""
MAX_DIGITS = 40
"""Digits of a number."""
MAX_MESSAGES = 4096
"""Messages of a chat: more than fit any model's context, and few enough to be checked in no time."""
MAX_PARTS = 2048
"""Parts of a message's content."""
MAX_CALLS = 256
"""Calls in one message of the assistant's."""
MAX_TOOLS = 1024
"""Tools, or functions, that are offered."""
MAX_STOPS = 32
"""Stop texts. Servers without stop texts of their own get four at most."""
MAX_STOP = 1024
"""Characters of a stop text."""
MAX_BIASES = 2048
"""Tokens in `logit_bias`."""
MAX_NAME = 512
"""Characters of a function's or a speaker's name."""
MAX_ID = 4096
"""Characters of an id of a call, and of `user`."""
MAX_PAIRS = 2000
"""Pairs in the history of the native door."""
MAX_TOLD = 16
"""Members that `x-gateway-ignored` names without knowing them."""
MAX_TOLD_NAME = 64
"""Characters of such a name."""
