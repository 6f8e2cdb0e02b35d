"""Features and labels: the splits of a store, joined with the label files of a data folder."""
