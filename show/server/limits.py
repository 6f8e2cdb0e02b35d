"""How much one request, and all requests together, may take."""

from dataclasses import dataclass

MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """Limits of the server. The decoder has its own for the pixels, time and memory of an image.

    Parameters
    ----------
    file_bytes : int
        Most bytes of an image file.
    request_bytes : int
        Most bytes of a request.
    files : int
        Most images of a request.
    seconds : float
        Most time of a request, from its first byte to its answer.
    requests : int
        Most requests at once: those that are worked on, and those that wait.
    waiting_bytes : int
        Most bytes of these requests together.
    threads : int
        Requests that are worked on at the same time. One can decode while another is in the network.
    retry_seconds : int
        When a client that was refused may come again.
    """

    file_bytes: int = 64 * MEGABYTE
    request_bytes: int = 128 * MEGABYTE
    files: int = 16
    seconds: float = 120.0
    requests: int = 32
    waiting_bytes: int = 512 * MEGABYTE
    threads: int = 2
    retry_seconds: int = 5
