"""Owners and users: what runs on their machines."""
