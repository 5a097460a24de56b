"""Foreign clients: small programs that run in environments of their own, never imported."""
