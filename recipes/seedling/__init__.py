"""Everything that makes the seedling: its text, its tokenizer, pre-training. ``make`` runs it."""
