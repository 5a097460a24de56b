"""Emulation of features that backends lack. Pure: events in, events out, no I/O and no clock.

`base` defines what an ability is; `registry` lists all abilities. `stop` cuts an answer at the client's
stop sequences; `pieces` splits a complete answer into the pieces of a stream; `usage` counts tokens;
`reasoning` moves reasoning out of the text; `structured` makes answers fit `response_format`;
`prompted_tools` offers functions by prompt; `forced_call` demands a call; `tool_text` takes calls out of
the text. Several abilities share `instructions` (adds text to a conversation), `offered_functions` (what a
request offers), `call_reader` and `call_choices` (separate calls from text). An attempt (`path/attempt.py`)
puts the abilities that a request needs into a pipeline.

Rule: abilities do not import one another.
"""
