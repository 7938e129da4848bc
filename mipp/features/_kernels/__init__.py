"""Compiled kernels of the descriptors. Private: arguments are checked by the callers.

They release the GIL and are cached on disk; with ``NUMBA_DISABLE_JIT=1`` the same code runs as plain Python, so pixels
are widened by hand: numba makes ``int`` of an unsigned pixel an unsigned integer, whose differences wrap.
"""
