"""A corpus and a base become a checkpoint."""
