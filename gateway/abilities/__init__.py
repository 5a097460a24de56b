"""What a backend lacks and the gateway gives: pure stages over the events of any dialect.

`stage` says what a stage is; `stop` cuts at the client's stop texts; `usage` counts where nobody else
does; `pieces` cuts a whole answer into the pieces of a stream. The relay puts them in a row.
"""
