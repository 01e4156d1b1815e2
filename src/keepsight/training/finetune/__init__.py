"""Fine-tuning at the price of its later part: the frozen early blocks run once, their activations are kept.

``recipe.finetune`` is the recipe. ``fit.Trainer`` trains on a ``cache.Cache`` by a ``settings.Plan``.
"""
