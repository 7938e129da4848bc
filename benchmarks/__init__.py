"""Benchmarks of mipp, and the tools that compare, scale and track them. Not installed with the package."""
