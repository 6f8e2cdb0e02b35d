"""All that needs Keras: networks, losses, training."""
