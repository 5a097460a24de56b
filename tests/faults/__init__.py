"""One file a fault: what the gateway does when a backend, or a client, misbehaves."""
