"""Recipes that train models, the numerics behind them, and the gate that a release must pass."""
