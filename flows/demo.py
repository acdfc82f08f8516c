"""Everything on this machine: an S3 server, a stand-in model and sample descriptions.

The bucket is kept in a folder between runs, so that a second run pays for nothing.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from flows.order_models import DEMO_BUCKET, STAND_IN
from flows.servers import ROOT, serve
from flows.stand_in import SAMPLES
from tasks.core.errors import PairmillError

HOME = ROOT / ".demo"
FOLDER = HOME / "bucket"
SOURCE = f"s3://{DEMO_BUCKET}/tasks"
DESTINATION = f"s3://{DEMO_BUCKET}/dataset"
# The flows' parameters for it, but for the stand-in's address, which is known when it runs.
PARAMETERS = {"source": SOURCE, "destination": DESTINATION, "model_name": f"openai/{STAND_IN}"}

Report = TypeVar("Report", bound=BaseModel)


@contextmanager
def demo_stack(folder: Path = FOLDER) -> Iterator[str]:
    """Run both servers inside the block and yield the stand-in's address.

    What the bucket holds at the end is kept in `folder`, whatever ended the block.
    """
    with ExitStack() as stack:
        stack.enter_context(_environment())
        storage = stack.enter_context(serve("moto.server", "-H", "127.0.0.1", "-p", "{port}"))
        model = stack.enter_context(serve("flows.stand_in", "{port}"))
        os.environ["AWS_ENDPOINT_URL"] = storage.url
        storage.wait()
        _fill_bucket(folder)
        stack.callback(_save_bucket, folder)
        model.wait()
        yield f"{model.url}/v1"


def localise(report: Report) -> Report:
    """Return `report` with the folder that keeps the demo's bucket in place of its URIs."""
    return report.model_validate_json(localise_text(report.model_dump_json()))


def localise_text(text: str) -> str:
    """Return `text` with the folder that keeps the demo's bucket in place of its URIs: its server ends with the run."""
    path = FOLDER.relative_to(Path.cwd()) if FOLDER.is_relative_to(Path.cwd()) else FOLDER
    return text.replace(f"s3://{DEMO_BUCKET}/", f"{path.as_posix()}/")


def _fill_bucket(folder: Path) -> None:
    """Make the bucket and put back what the folder kept, or the sample descriptions."""
    s3 = _s3()
    s3.create_bucket(Bucket=DEMO_BUCKET)
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in kept:
        s3.put_object(Bucket=DEMO_BUCKET, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes())
    if not any(path.is_relative_to(folder / "tasks") for path in kept):
        rows = [json.loads(line) for line in SAMPLES.read_text(encoding="utf-8").splitlines()]
        lines = (json.dumps({"task": row["task"], "domain": row["domain"]}, ensure_ascii=False) for row in rows)
        s3.put_object(Bucket=DEMO_BUCKET, Key="tasks/samples.jsonl", Body="\n".join(lines).encode())


def _save_bucket(folder: Path) -> None:
    """Bring the folder to what the bucket holds, through a new folder so that it is never half."""
    s3 = _s3()
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=DEMO_BUCKET)
    for item in (item for page in pages for item in page.get("Contents", [])):
        path = new / item["Key"]
        if not path.resolve().is_relative_to(new.resolve()):
            raise PairmillError(f"The demo bucket holds {item['Key']!r}, which is no place in a folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3.get_object(Bucket=DEMO_BUCKET, Key=item["Key"])["Body"].read())
    replace_folder(folder, new)


def replace_folder(folder: Path, new: Path) -> None:
    """Put `new` in the place of `folder`; wherever it is killed, what stands there is whole."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _s3() -> Any:
    import boto3  # noqa: PLC0415  (not for --help)

    return boto3.client("s3")


@contextmanager
def alone() -> Iterator[None]:
    """Hold the demo's folder inside the block: two demos would save over each other's bucket.

    Raises:
        PairmillError: Another one holds it.
    """
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PairmillError("The demo is running already. Wait for it, or end it, and run again.") from error
        yield


@contextmanager
def _environment() -> Iterator[None]:
    """Give the AWS libraries and litellm, here and in the servers, nothing of the user's own."""
    ours = {
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(8),
        "AWS_DEFAULT_REGION": "us-east-1",
        "OPENAI_API_KEY": "stand-in",
        "PAIRMILL_STATE": str(HOME / "state"),
    }
    theirs = [name for name in os.environ if name.startswith("AWS_")]
    before = {name: os.environ.pop(name, None) for name in {*ours, *theirs, "AWS_ENDPOINT_URL"}}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
