"""Deployments over a network against embedded ones, and at a distance."""
