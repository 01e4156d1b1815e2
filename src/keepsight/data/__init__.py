"""Samples, annotations, versions, importers, splits, index vectors and erasure."""
