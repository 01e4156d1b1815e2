"""The dashboard and the REST routes beside ``predict``: thin pages over the floors below."""
