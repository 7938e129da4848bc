"""Data of one server on disk: a catalog (SQLite) and immutable, checksummed files. See the README of this room."""
