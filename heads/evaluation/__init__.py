"""How good a head and its decoder are on images that they did not learn from: out-of-fold scores, cross-validation."""
