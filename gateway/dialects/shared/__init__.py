"""shared: TODO."""
