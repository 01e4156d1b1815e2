"""Counts things in pictures. Nothing is imported here: each floor of Keepsight takes the module that it needs."""
