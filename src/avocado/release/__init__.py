"""A checkpoint that proved itself becomes a release; a release with a price becomes an offer."""
