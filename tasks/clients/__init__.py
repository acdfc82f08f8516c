"""The edges: one library, one door."""
