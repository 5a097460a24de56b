"""logs: TODO."""
