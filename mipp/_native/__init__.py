"""The built extension. Use it through the modules above it (:mod:`mipp.ring`, :mod:`mipp.cpu`, ...)."""
