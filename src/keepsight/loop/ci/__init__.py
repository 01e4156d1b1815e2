"""``keepsight ci``: the pipeline once, on a machine that may know nothing but ``keepsight.yaml``.

``source`` brings the pictures in, ``standalone`` the live model, and takes a released one out again; ``remote`` has a
server do it all instead. ``report`` and ``junit`` tell what came of it; ``templates`` writes the pipelines of forges.
"""
