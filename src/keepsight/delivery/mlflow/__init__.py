"""MLflow: runs, metrics, models and aliases on a tracking server or SQL store (extra [mlflow]).

``store`` talks to it, ``entry`` says what a run is there, ``mirror`` writes it, ``pyfunc`` loads a bundle for it.
"""
