"""What executes the front: one file and one class per engine, and one line per engine in `registry`."""
