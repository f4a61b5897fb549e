"""redline: find the point where Gemini starts refusing, and how to stay just under it."""

__version__ = "0.1.0"
