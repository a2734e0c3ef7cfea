"""Who owes what: a double-entry book with one writer, and the proof that it never went wrong.

Start at ``operation`` (what can be asked, what comes back), then ``book`` (the decisions).
"""
