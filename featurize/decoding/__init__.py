"""From a file's bytes to pixels: one file per kind of image."""
