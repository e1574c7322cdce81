"""Negotiation profiles as files: those that are committed beside tests, and those that a failing test leaves.

It must not know how a profile is taken from a VM, nor which test wants which.
"""
