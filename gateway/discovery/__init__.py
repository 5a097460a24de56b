"""discovery: TODO."""
