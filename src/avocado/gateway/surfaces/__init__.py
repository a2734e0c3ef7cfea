"""The endpoints that sell tokens: each a translation in and out of the one paid path."""
