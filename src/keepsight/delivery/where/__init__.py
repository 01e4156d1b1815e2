"""Machines rented for a run: what the user wishes (``wish``), and the task of SkyPilot or Kubernetes (``tasks``)."""
