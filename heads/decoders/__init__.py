"""Decoders: from scores to concept sets. One file per decoder."""
