"""The log: one line per request, and the events in the gateway's life.

`events`: what is logged; `lines`: as JSON or text lines; `terminal`: as a person reads it on a terminal;
`writer`: writes off the event loop, so that a stopped reader stops nothing.

Rule: Never logs prompts, answers or keys.
"""
