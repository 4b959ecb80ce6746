"""Any bytes at all, given to whatever reads bytes of strangers."""
