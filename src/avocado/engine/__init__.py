"""Prompt in, tokens out. Engines are adapters behind one small protocol (``engine.py``)."""
