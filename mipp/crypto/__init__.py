"""Keys, seals and signatures, over the `cryptography` package; no primitive is implemented here."""
