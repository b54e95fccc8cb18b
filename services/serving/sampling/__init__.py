"""Calls that are sampled for the request log, as a server's process keeps them. Standard library only: it runs in whatever environment a
model or a script is served in."""
