"""path: TODO."""
