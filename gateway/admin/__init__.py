"""The admin plane's own pages: metrics and version. No key: keep this plane on loopback."""
