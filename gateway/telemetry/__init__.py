"""What is told of the gateway's work: one record for each request, and those who read it.

`receipt` is the record: the relay fills it, nobody else; it holds no prompt, no answer and no key.
`metrics` (the only file that knows Prometheus) and `logs` are told of it through `Hook`s, as are the
few lifecycle events of backends. A hook never raises into a request.
"""
