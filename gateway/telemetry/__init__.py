"""What is recorded of the gateway's work, and who is told.

`receipt`: the record of one request, and the hooks that are told of it; `comparison`: the record of a
shadow copy; `logs`: log lines; `metrics`: Prometheus metrics.

Rule: A receipt holds no prompt, no answer and no key. A hook never raises into a request.
"""
