"""What production traffic says about the model: drift, accuracy, latency."""
