"""Emulation of what backends lack. Pure: events in, events out, no I/O and no clock.

`base` says what an ability is; `registry` lists them. `stop` cuts at the client's stop sequences, `pieces`
splits a whole answer into the pieces of a stream, `usage` counts tokens. An attempt (`path/attempt.py`)
puts those that a request needs in a pipeline.

Rule: abilities do not import one another.
"""
