"""Cheaper selection: what the present selection costs, and what searches of chosen clusters would cost and find."""
