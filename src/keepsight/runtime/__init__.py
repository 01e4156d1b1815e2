"""Runs a model bundle on pictures with numpy, onnxruntime, simplejpeg and Pillow alone."""
