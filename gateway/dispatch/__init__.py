"""dispatch: TODO."""
