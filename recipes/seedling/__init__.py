"""Everything that makes the seedling: its text, its tokenizer, its pre-training. ``make`` runs it."""
