"""Which board for which model: what fits, and how fast it would be."""
