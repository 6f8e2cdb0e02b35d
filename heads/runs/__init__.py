"""A run is a folder with everything that a result needs: head, decoder, vocabulary, scores, submission."""
