"""What executes the frozen network: one file per engine."""
