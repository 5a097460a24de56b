"""The log: one line per request, and the events of the gateway itself.

`events`: the events that are logged; `lines`: JSON and text lines; `terminal`: lines for a person at a
terminal; `writer`: writes lines outside the event loop, so that a blocked reader does not block the
gateway.

Rule: Prompts, answers and keys are never logged.
"""
