"""metrics: TODO."""
