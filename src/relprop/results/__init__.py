"""What comes back: an explanation, its ledger, and both in files."""
