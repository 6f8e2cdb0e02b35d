"""What a head and its decoder reach: out-of-fold scores, cross-validation, the official score."""
