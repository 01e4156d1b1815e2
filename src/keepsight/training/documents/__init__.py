"""Training of readers: fields learned from labelled documents, and the recogniser fine-tuned on corrected lines."""
