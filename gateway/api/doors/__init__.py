"""doors: TODO."""
