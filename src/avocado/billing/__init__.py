"""Charges become invoice lines that sum to the ledger, to the last nano-unit."""
