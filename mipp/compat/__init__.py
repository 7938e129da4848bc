"""Drop-ins for packages that people already use. Each is imported by name: ``import mipp.compat.phe as phe``."""
