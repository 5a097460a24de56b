"""The command line.

`main`: all commands and their options; `init_config`: finds out what a server speaks, and writes a first
config file; `explain`: says where a request would go, and sends nothing; `demo`: simulated servers with the
gateway over them; `healthcheck`: the probe inside containers.

Rule: A command imports what it runs only when it runs, so that `healthcheck` starts fast.
"""
