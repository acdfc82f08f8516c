"""The flows: what Prefect deploys and the command line runs."""
