"""Making a gallery: vectors of the labelled pictures, what they say about similarities, and a metric head."""
