"""A real gateway on a port of its own, simulated servers behind it, real clients before it."""
