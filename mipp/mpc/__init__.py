"""Protocols among servers: comparison, ranking, range certificates on secret shares."""
