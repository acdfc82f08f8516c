"""The pure core: no I/O, clock, randomness, logging or Prefect."""
