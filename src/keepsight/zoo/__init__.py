"""Pretrained weights: name, licence, origin, proof by sha256, and the ONNX graphs made from them."""
