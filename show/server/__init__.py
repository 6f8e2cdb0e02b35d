"""The local page of `python -m show serve`: its gate, its queue, its answers, and the page itself."""
