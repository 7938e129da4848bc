"""Owners and users: the programs that run on their machines."""
