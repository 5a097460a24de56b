"""The log: one line per request, and the events of the gateway itself.

`events`: the events that are logged, and the configuration of logging; `request_lines`: the lines of
requests; `handler`: keeps the order of lines and joins those of requests; `lines`: JSON and text lines;
`terminal`: lines for a person at a terminal; `writer`: writes lines outside the event loop, so that a
blocked reader does not block the gateway.

Rule: Prompts, answers and keys are never logged.
"""
