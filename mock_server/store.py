"""What can go wrong with a shared store; apart, so that a server without one needs no Redis client."""


class StoreLostError(Exception):
    """The store does not answer."""
