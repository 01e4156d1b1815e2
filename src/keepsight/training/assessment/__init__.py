"""What a model can and cannot do, beyond its figures: slices, calibration, robustness, mistakes and explanations.

Everything is measured on held-out pictures that the model was not trained on, with intervals, and kept as JSON beside
the model (``store``), so that the gate, the command line, the dashboard and the reports read the same figures.
"""
