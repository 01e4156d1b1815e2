"""Keepsight keeps a small business's vision models seeing straight."""

__version__ = "0.1.0"
