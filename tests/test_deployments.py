import inspect
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import boto3
import pytest

from deployments import prepare
from deployments.definitions import read_deployments, read_environment
from deployments.serve import make_deployments
from flows.backfill import PARTITION_DEPLOYMENT
from flows.run import ENVIRONMENT
from flows.servers import ROOT
from tasks.clients import table
from tasks.publicise import PUBLISHED
from tests.model_server import ModelServer
from tests.test_flow import lines, put

SETTINGS = {f"PAIRMILL_{name}": f"the {name}" for name in ("SOURCE", "DESTINATION", "MODEL", "API_BASE")}
START_SECONDS, RUN_SECONDS = 240.0, 600.0


def flow_of(entrypoint: str) -> Any:
    module, _, name = entrypoint.rpartition(".")
    return getattr(import_module(module), name)


def test_every_deployment_names_a_flow_and_only_parameters_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    for one in read_deployments():
        taken = set(inspect.signature(flow_of(one["entrypoint"])).parameters)
        scheduled = {name for schedule in one.get("schedules", []) for name in schedule["parameters"]}
        assert set(one["parameters"]) | scheduled <= taken, one["name"]
        assert set(one["parameters"].values()) <= set(SETTINGS.values())


def test_serving_from_one_process_is_the_same_as_deploying() -> None:
    wanted, served = read_deployments(), make_deployments()
    assert [one.name for one in served] == [one["name"] for one in wanted]
    for ours, theirs in zip(wanted, served, strict=True):
        assert theirs.entrypoint == ours["entrypoint"]
        assert (theirs.parameters, theirs.tags) == (ours["parameters"], ours["tags"])
        assert theirs.concurrency_limit == ours["concurrency_limit"]["limit"]
        crons = [(one["cron"], one["timezone"], one["slug"], one["parameters"]) for one in ours.get("schedules", [])]
        for cron, one in zip(crons, theirs.schedules, strict=True):
            assert cron == (one.schedule.cron, one.schedule.timezone, one.slug, one.parameters)


def test_a_backfill_finds_the_deployment_of_its_days_and_can_never_fill_the_pool() -> None:
    deployments = {one["name"]: one for one in read_deployments()}
    names = {f"{flow_of(one['entrypoint']).name}/{name}" for name, one in deployments.items()}
    assert PARTITION_DEPLOYMENT in names
    assert deployments["backfill"]["concurrency_limit"]["limit"] < prepare.POOL_LIMIT
    assert {one["work_pool"]["work_queue_name"] for one in deployments.values()} == set(prepare.PRIORITIES)
    assert {one["work_pool"]["name"] for one in deployments.values()} == {prepare.POOL}


def test_a_worker_sets_what_the_command_line_sets() -> None:
    assert ENVIRONMENT.items() <= read_environment().items()


# From here on: a real server, worker and browser; pytest -m deployments


@dataclass
class Stack:
    """A Prefect server with everything deployed and a worker started elsewhere."""

    ui: str
    bucket: str
    model: ModelServer

    def put_day(self, day: str, rows: int) -> None:
        put(self.bucket, f"tasks/{day}.jsonl", lines(rows).replace("thing", f"thing of {day}"))

    def published(self) -> dict[str, int]:
        rows = table.scan(table.open_table(f"{self.bucket}/out/pairs"))
        return {} if rows is None else dict(rows.collect()["partition"].value_counts().iter_rows())


def wait_for(what: str, look: Callable[[], Any], seconds: float = RUN_SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(1)
    return found


def start_program(log: Path, folder: Path, environment: dict[str, str], *command: str) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_program(program: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(program.pid, sign)
            program.wait(30)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@pytest.fixture(scope="module")
def stack(s3_endpoint: str, _model_server: ModelServer, tmp_path_factory: Any, free_port: int) -> Iterator[Stack]:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    folder = tmp_path_factory.mktemp("deployments")
    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    ui = f"http://127.0.0.1:{free_port}"
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(free_port),
        "PREFECT_API_URL": f"{ui}/api",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PAIRMILL_SOURCE": f"s3://{name}/tasks/{{partition}}.jsonl",
        "PAIRMILL_DESTINATION": f"s3://{name}/out",
        "PAIRMILL_MODEL": "openai/x",
        "PAIRMILL_API_BASE": _model_server.api_base,
    }

    def do(*command: str) -> None:
        subprocess.run([sys.executable, "-m", *command], check=True, cwd=ROOT, env=environment, timeout=START_SECONDS)

    programs = [start_program(folder / "server.log", folder, environment, "server", "start")]
    try:
        with temporary_settings({PREFECT_API_URL: f"{ui}/api"}):
            wait_for("the server", api_answers, START_SECONDS)
            do("deployments.prepare")
            do("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
            programs.append(
                start_program(folder / "worker.log", folder, environment, "worker", "start", "--pool", "pairmill")
            )
            yield Stack(ui, f"s3://{name}", _model_server)
    finally:
        for program in reversed(programs):
            end_program(program)


@pytest.fixture(scope="module")
def free_port() -> int:
    from flows.servers import _free_port

    return _free_port()


def api_answers() -> bool:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return client.api_healthcheck() is None


def read_runs(name: str) -> list[Any]:
    """Return the flow runs of this name, the newest first."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return sorted(runs, key=lambda run: run.expected_start_time, reverse=True)


def ended_run(name: str) -> Any:
    def look() -> Any:
        return next((run for run in read_runs(name) if run.state.is_final()), None)

    return wait_for(name, look)


def read_artifact(key: str, run_id: Any) -> Any:
    from prefect import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=wanted)[0]


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_a_schedule_publishes_the_day_before_and_the_run_says_so(stack: Stack) -> None:
    from prefect import get_client
    from prefect.client.schemas.schedules import CronSchedule

    now = datetime.now(UTC)
    days = {(now + timedelta(days=offset)).date().isoformat() for offset in (-1, 0)}  # midnight may pass
    for day in days:
        stack.put_day(day, 20)
    with get_client(sync_client=True) as client:
        nightly = client.read_deployment_by_name("short-text-matching/nightly")
        schedule = nightly.schedules[0]
        assert isinstance(schedule.schedule, CronSchedule)
        assert schedule.schedule.cron == "0 2 * * *"
        client.update_deployment_schedule(
            nightly.id, schedule.id, schedule=CronSchedule(cron="* * * * *", timezone="UTC")
        )

        def look() -> Any:
            return next((run for day in days for run in read_runs(f"nightly-{day}") if run.state.is_final()), None)

        run = wait_for("a nightly run", look)
        client.update_deployment_schedule(nightly.id, schedule.id, active=False)
    day = run.name.removeprefix("nightly-")
    assert day == (run.expected_start_time - timedelta(days=1)).date().isoformat()
    assert run.state.message.startswith(f"{day}: published 20 pairs, 0 rejected")
    assert stack.published()[day] == 20
    assert read_artifact("run-progress", run.id).data == 100.0
    assert "pairmill" in run.tags


CHROMIUM = "/usr/bin/chromium"
# As root in a container, and with nothing asked of the network.
CHROMIUM_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        assert not os.environ.get("CI"), f"{CHROMIUM} is not installed"
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.set_default_timeout(60_000)
        yield opened
        opened.screenshot(path=tmp_path / "last.png")
        browser.close()


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_a_person_backfills_two_days_in_the_browser_and_reads_what_they_brought(
    stack: Stack, page: Any, tmp_path: Path
) -> None:
    month = (datetime.now(UTC).replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
    for day, rows in (("03", 12), ("04", 7)):
        stack.put_day(f"{month}-{day}", rows)
    page.goto(f"{stack.ui}/deployments")
    page.locator("a[href*='/deployments/deployment/']", has_text="backfill").click()
    page.get_by_text("Run", exact=True).last.click()
    page.get_by_text("Custom run").click()
    for day in ("3", "4"):
        page.get_by_text("Select date").first.click()
        page.locator(".p-calendar-header__before button").click()
        page.locator(".p-calendar-date-picker__date--in-month").get_by_text(day, exact=True).click()
        page.get_by_role("button", name="Apply").click()
    form = page.inner_text("body")
    assert 'Property is type "None"' not in form
    page.locator("textarea").first.fill("openai/chosen-in-the-browser")
    page.screenshot(path=tmp_path / "form.png")
    page.get_by_role("button", name="Submit").click()

    name = f"backfill-{month}-03-to-{month}-04"
    run = ended_run(name)
    assert (run.state.name, run.state.message) == ("Completed", "2 days done: 19 pairs accepted, 19 calls paid")
    page.goto(f"{stack.ui}/runs/flow-run/{run.id}")
    page.get_by_text("Artifacts", exact=True).click()
    page.get_by_text("Subflow Runs", exact=True).wait_for()
    page.screenshot(path=tmp_path / "run.png")
    page.goto(f"{stack.ui}/artifacts/artifact/{read_artifact('backfill-report', run.id).id}")
    said = page.get_by_role("heading", name="days done").inner_text()
    page.screenshot(path=tmp_path / "report.png")
    published = stack.published()
    accepted = published[f"{month}-03"] + published[f"{month}-04"]
    assert said == f"2 of 2 days done, {accepted} pairs accepted"
    models = {body["model"] for body in stack.model.bodies if f"thing of {month}" in str(body)}
    assert models == {"chosen-in-the-browser"}


def start_backfill(first: str, last: str, **parameters: Any) -> Any:
    from prefect.deployments import run_deployment

    given = {"start_date": first, "end_date": last, **parameters}
    return run_deployment("backfill/backfill", parameters=given, timeout=0)


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_cancelling_a_backfill_cancels_its_days_and_they_stop_paying(stack: Stack) -> None:
    from prefect import get_client
    from prefect.states import Cancelling

    days = ("2026-01-01", "2026-01-02", "2026-01-03")
    for day in days:
        stack.put_day(day, 4_000)
    stack.model.latency_seconds = 1.0
    run = start_backfill(days[0], days[-1], concurrency=4)
    try:
        wait_for("paid calls of a day", lambda: any("thing of 2026-01-0" in prompt for prompt in stack.model.prompts))
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Cancelling())
            wait_for("the backfill's end", lambda: str(client.read_flow_run(run.id).state).startswith("Cancelled"))

        def ended() -> bool:
            begun = [one for day in days for one in read_runs(f"partition-{day}")]
            return bool(begun) and all(one.state.is_cancelled() for one in begun)

        wait_for("the end of its days", ended)
        assert read_runs("partition-2026-01-03") == []  # only max_parallel of them had begun
        paid = len(stack.model.prompts)
        time.sleep(5)
        assert len(stack.model.prompts) == paid < 4_000
    finally:
        stack.model.latency_seconds = 0.0
    assert stack.published().keys().isdisjoint(days)


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_a_day_that_fails_on_the_pool_stops_no_other_and_is_named(stack: Stack) -> None:
    stack.put_day("2026-02-02", 5)
    run = start_backfill("2026-02-01", "2026-02-02")
    ended = ended_run("backfill-2026-02-01-to-2026-02-02")
    assert (ended.id, ended.state.name) == (run.id, "Failed")
    assert ended.state.message.startswith("1 of 2 days failed: 2026-02-01. 2026-02-01: No task descriptions under")
    assert stack.published()["2026-02-02"] == 5


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_a_server_prepared_twice_tells_of_a_failure_and_starts_what_uses_a_published_day(stack: Stack) -> None:
    from prefect import flow, get_client, tags
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.events import emit_event

    told: list[str] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["content-length"])).decode())
            self.send_response(200)
            self.end_headers()

    @flow(name="consumer")
    def consumer(*, partition: str, files: list[str]) -> None:
        """Stand for what trains on a published partition."""

    @flow(name="failing", flow_run_name="failing")
    def fail() -> None:
        raise ValueError("no bucket")

    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings: dict[str, Any] = {
            "url": f"http://127.0.0.1:{server.server_port}",
            "json_data": {"text": "{{subject}}: {{body}}"},
        }
        block: Any = CustomWebhookNotificationBlock(name="ops", **settings)
        block.save("ops", overwrite=True)
        deployed: Any = consumer.to_deployment(name="train")
        deployed.apply()
        for _ in range(2):
            prepare.prepare(notify="custom-webhook/ops", then="consumer/train")
        time.sleep(5)  # the server reads its automations anew
        with tags("pairmill"), pytest.raises(ValueError, match="no bucket"):
            fail()
        payload = {"partition": "2026-03-01", "files": ["s3://a/b", "s3://a/c"]}
        emit_event(event=PUBLISHED, resource={"prefect.resource.id": "pairmill.pairs.x"}, payload=payload)
        wait_for("the notification", lambda: [text for text in told if "failing" in text and "no bucket" in text])
        with get_client(sync_client=True) as client:
            deployment = client.read_deployment_by_name("consumer/train")

            def started() -> Any:
                return [run.parameters for run in client.read_flow_runs() if run.deployment_id == deployment.id]

            assert payload in wait_for("the consumer's run", started)
            assert len({one.name for one in client.read_automations()}) == len(client.read_automations()) == 4
        server.shutdown()
