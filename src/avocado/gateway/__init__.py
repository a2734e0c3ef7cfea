"""The paid, OpenAI-compatible API."""
