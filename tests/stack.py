"""A Prefect server with everything deployed and two workers, as a team would run it."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import Artifact
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.servers import ROOT, free_port
from tests.bucket import count_rows, lines, put
from tests.model_server import ModelServer

START_SECONDS, RUN_SECONDS = 600.0, 600.0
# Runs at once on each of the two: a backfill and two of its days need both.
WORKER_LIMIT = 2
WORKERS = ("one", "two")


@dataclass
class Stack:
    """The server's address, the bucket and the model; `programs` are the processes by their name."""

    folder: Path
    environment: dict[str, str]
    ui: str
    bucket: str
    model: ModelServer
    programs: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def start(self, name: str, module: str, *arguments: str) -> None:
        """Start a program in a session of its own, outside the checkout unless it is a module of ours."""
        with self.log(name).open("ab") as output:
            self.programs[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=self.folder if module == "prefect" else ROOT,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Return where a program's output goes."""
        return self.folder / f"{name}.log"

    def start_server(self) -> None:
        """Start the Prefect server and wait until it answers."""
        self.start("server", "prefect", "server", "start")
        wait_for("the server", api_answers, START_SECONDS)

    def start_worker(self, name: str) -> None:
        """Start one worker."""
        limit = str(WORKER_LIMIT)
        self.start(name, "prefect", "worker", "start", "--pool", "pairmill", "--name", name, "--limit", limit)

    def worker_of(self, pid: int) -> str:
        """Return the name of the worker that started the process `pid`."""
        status = Path(f"/proc/{pid}/status").read_text()
        parent = int(status.partition("PPid:")[2].split()[0])
        return next(name for name, program in self.programs.items() if program.pid == parent)

    def kill(self, name: str, *others: int) -> None:
        """End a program and all of its process group at once, and the groups of `others`."""
        for pid in (self.programs[name].pid, *others):
            with suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        self.programs.pop(name).wait()

    def end(self) -> None:
        """End every program, the last one first."""
        for program in reversed(self.programs.values()):
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(program.pid, sign)
                    program.wait(30)

    def do(self, *command: str) -> None:
        """Run a command in the checkout to its end."""
        line = [sys.executable, "-m", *command]
        ended = subprocess.run(
            line, check=False, cwd=ROOT, env=self.environment, timeout=START_SECONDS, capture_output=True, text=True
        )
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"

    def put_day(self, day: str, rows: int, common: int = 0) -> None:
        """Put that many descriptions into the source of `day`, and the first `common` of those that days share."""
        own = lines(rows).replace("thing", f"thing of {day}")
        put(self.bucket, f"tasks/{day}.jsonl", f"{own}\n{lines(common).replace('thing', 'thing of any day')}")

    def published(self) -> dict[str, int]:
        """Return the pairs of each published day."""
        return count_rows(f"{self.bucket}/out/pairs", "partition")

    def prompts(self, day: str) -> list[str]:
        """Return what the model was asked for `day`, one prompt a call."""
        return [prompt for prompt in self.model.prompts if f"thing of {day}" in prompt]


@contextmanager
def run_stack(folder: Path, model: ModelServer) -> Iterator[Stack]:
    """Run it inside the block; `model` answers its calls."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    port = free_port()
    ui = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"{ui}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PAIRMILL_STATE": str(folder / "state"),
        "PAIRMILL_SOURCE": f"s3://{name}/tasks/{{partition}}.jsonl",
        "PAIRMILL_DESTINATION": f"s3://{name}/out",
        "PAIRMILL_MODEL": "openai/x",
        "PAIRMILL_API_BASE": model.api_base,
    }
    stack = Stack(folder, environment, ui, f"s3://{name}", model)
    try:
        with temporary_settings({PREFECT_API_URL: f"{ui}/api"}):
            stack.start_server()
            stack.do("deployments.prepare")
            stack.do("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
            pause_schedules()
            for worker in WORKERS:
                stack.start_worker(worker)
            yield stack
    finally:
        stack.end()


def wait_for(what: str, look: Callable[[], Any], seconds: float = RUN_SECONDS) -> Any:
    """Return what `look` finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.5)
    return found


def api_answers() -> bool:
    """Whether the server is up."""
    with get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


def pause_schedules() -> None:
    """Have nothing run but what a test starts, also at the hours of the night and the week."""
    with get_client(sync_client=True) as client:
        for deployment in client.read_deployments():
            for schedule in deployment.schedules:
                client.update_deployment_schedule(deployment.id, schedule.id, active=False)


def read_runs(name: str) -> list[Any]:
    """Return the flow runs of this name, the newest first."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return sorted(runs, key=lambda run: str(run.expected_start_time), reverse=True)


def ended_run(name: str) -> Any:
    """Wait for the end of the run of this name and return it."""
    return wait_for(name, lambda: next((run for run in read_runs(name) if run.state.is_final()), None))


def read_artifact(key: str, run_id: Any) -> Artifact:
    """Return the artifact that a run has left under this key."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=wanted)[0]


def read_steps(run_id: Any) -> list[str]:
    """Return the names of a run's steps."""
    ours = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        return [step.name for step in client.read_task_runs(flow_run_filter=ours)]


def start_partition(day: str, deployment: str = "partition", **parameters: Any) -> Any:
    """Start a run of one day."""
    given = {"partition": day, **parameters}
    return run_deployment(
        f"short-text-matching/{deployment}", parameters=given, timeout=0, flow_run_name=f"{deployment}-{day}"
    )


def start_backfill(first: str, last: str, **parameters: Any) -> Any:
    """Start a run of some days."""
    given = {"start_date": first, "end_date": last, **parameters}
    return run_deployment("backfill/backfill", parameters=given, timeout=0)
