"""What can stop a run, each as one sentence or two that say what to do next.

    PairmillError
    ├── UsageError        a parameter that cannot be right (exit code 2)
    ├── SourceError       nothing to read, or an object that cannot be read
    ├── StorageError      bucket, credentials, endpoint or permission
    ├── SchemaError       the source's columns do not fit the published table
    ├── ModelError        key, model, quota or parameter that the provider refuses
    ├── RejectedError     what was made may not be published, or is nothing
    └── StoppedError      a stop that was asked for, a spent budget, failures in a row, a cluster that is gone

Bad data is never one of these: it becomes a rejected row with its reasons.
Each takes one message, so that it survives pickling across processes.
"""

# Prefect's UI has a button for it.
AGAIN = "run the same command again"
# What a message about a run that ended early says last.
RESUME = f"What was paid for is kept: {AGAIN} to go on."
STOPPED = f"The run was stopped. {RESUME}"


class PairmillError(Exception):
    """A broken world: stops the run; its message is what the user reads."""

    exit_code = 1


class UsageError(PairmillError):
    """A parameter is missing or cannot be right; nothing was read or paid for."""

    exit_code = 2


class SourceError(PairmillError):
    """The task descriptions cannot be read; names the object and the line."""


class StorageError(PairmillError):
    """The object storage refuses or cannot be reached; names the URI."""


class SchemaError(PairmillError):
    """A source column does not fit the published table; names column and types."""


class ModelError(PairmillError):
    """The provider refuses every call for the same cause; names what to set."""


class RejectedError(PairmillError):
    """Too much was rejected, or rows differ too much from the day before; nothing was published."""


class StoppedError(PairmillError):
    """The run was told to stop, or cannot go on by now; what was paid for is kept."""
