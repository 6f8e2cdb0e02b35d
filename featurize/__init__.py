"""Images to embeddings: find, decode, run the frozen backbone once, hand the rows to the store."""
