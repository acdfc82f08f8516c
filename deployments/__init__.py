"""What Prefect runs by itself, and what its server needs for that."""
