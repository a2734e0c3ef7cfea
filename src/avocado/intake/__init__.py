"""What may come in: files that are what they say, and nothing that runs. Knows no model library."""
