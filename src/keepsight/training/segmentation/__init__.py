"""Training of foreground masks: views of pictures with their masks, the training itself, and its calibration."""
