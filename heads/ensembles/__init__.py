"""Several runs that predict together, and prediction with either."""
