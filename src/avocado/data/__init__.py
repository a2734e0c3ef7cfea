"""Files become a frozen corpus: read with origin, checked, rendered exactly as serving renders."""
