"""The pages of the dashboard, one module each; every module has a ``router``."""
