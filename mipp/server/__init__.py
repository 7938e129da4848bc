"""Clouds and the key centre: what runs on a server."""
