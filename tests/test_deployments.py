import inspect
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect import get_client
from prefect.settings import PREFECT_API_URL, Settings, temporary_settings
from prefect.settings.legacy import _get_settings_fields

from deployments import prepare
from deployments.automations import mark_crashed, start_on_published, tell_failure, tell_late_night
from deployments.definitions import read_deployments, read_environment
from deployments.serve import make_deployments
from flows.backfill import PARTITION_DEPLOYMENT
from flows.run import ENVIRONMENT
from flows.servers import ROOT
from flows.telling import name_run
from tasks.core.errors import PairmillError, UsageError
from tests.bucket import read_table
from tests.stack import (
    RUN_SECONDS,
    WORKER_LIMIT,
    WORKERS,
    Stack,
    ended_run,
    read_artifact,
    read_runs,
    read_steps,
    start_backfill,
    start_partition,
    wait_for,
)
from tests.test_brainstorm import family, lister

SETTINGS = {f"PAIRMILL_{name}": f"the {name}" for name in ("SOURCE", "DESTINATION", "MODEL", "API_BASE")}


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


def test_every_field_of_every_form_is_described_and_can_be_set() -> None:
    from prefect.utilities.callables import parameter_schema

    for one in read_deployments():
        for name, field in parameter_schema(flow_of(one["entrypoint"])).properties.items():
            assert field["description"], name
            # The form says of both that it cannot show them.
            assert field.keys().isdisjoint({"const", "anyOf"}), name


def test_serving_from_one_process_is_the_same_as_deploying() -> None:
    wanted, served = read_deployments(), make_deployments()
    assert [one.name for one in served] == [one["name"] for one in wanted]
    for ours, theirs in zip(wanted, served, strict=True):
        assert theirs.entrypoint == ours["entrypoint"]
        assert (theirs.parameters, theirs.tags) == (ours["parameters"], ours["tags"])
        crons = [(one["cron"], one["timezone"], one["slug"], one["parameters"]) for one in ours.get("schedules", [])]
        for cron, one in zip(crons, theirs.schedules, strict=True):
            assert cron == (one.schedule.cron, one.schedule.timezone, one.slug, one.parameters)


def test_a_backfill_finds_the_deployment_of_its_days_and_can_never_fill_the_pool() -> None:
    deployments = {one["name"]: one for one in read_deployments()}
    names = {f"{flow_of(one['entrypoint']).name}/{name}" for name, one in deployments.items()}
    assert PARTITION_DEPLOYMENT in names
    assert prepare.QUEUES["nightly"] + prepare.QUEUES["backfill"] < prepare.POOL_LIMIT
    assert {one["work_pool"]["work_queue_name"] for one in deployments.values()} == set(prepare.QUEUES)
    assert {one["work_pool"]["name"] for one in deployments.values()} == {prepare.POOL}


def test_every_run_is_named_after_its_deployment_and_day() -> None:
    for one in read_deployments():
        module, _, name = one["entrypoint"].rpartition(".")
        assert getattr(import_module(module), name).flow_run_name is name_run, one["name"]


def test_no_run_ends_with_a_lease_that_the_server_forgets_when_it_is_started_again() -> None:
    assert not [one["name"] for one in read_deployments() if "concurrency_limit" in one]
    assert not [one.name for one in make_deployments() if one.concurrency_limit]


def test_a_worker_sets_what_the_command_line_sets() -> None:
    assert ENVIRONMENT.items() <= read_environment().items()


def test_preparing_no_server_starts_none_and_says_what_to_set() -> None:
    with temporary_settings({PREFECT_API_URL: ""}), pytest.raises(UsageError, match="Set PREFECT_API_URL"):
        prepare.prepare()


@pytest.mark.parametrize("then", ["train", "flow/that-is-not-there"])
def test_a_deployment_that_is_none_is_named(prefect_api: str, then: str) -> None:
    named = pytest.raises(UsageError, match=f"no deployment '{then}'")
    with temporary_settings({PREFECT_API_URL: prefect_api}), named:
        prepare.prepare(then=then)


def test_every_automation_says_on_its_page_what_it_is_for() -> None:
    some = uuid4()
    made = (mark_crashed(), tell_failure(some), tell_late_night(some), start_on_published(some))
    assert not [one.name for one in made if not one.description]


def test_a_server_that_does_not_answer_is_named() -> None:
    address = "http://127.0.0.1:9/api"
    refused = pytest.raises(PairmillError, match=f"No Prefect server answers at {address}")
    with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client, refused:
        prepare.wait_for_server(client, seconds=0)


COMPOSE = Path(prepare.__file__).with_name("compose.yaml")


def test_every_setting_of_prefect_that_is_given_is_one_that_it_has() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    given = {**read_environment()}
    for service in services.values():
        given |= {name: value for name, value in service.get("environment", {}).items() if value is not None}
    ours = {name: str(value) for name, value in given.items() if name.startswith("PREFECT_")}
    known = {setting.name for setting in _get_settings_fields(Settings).values()}
    assert ours.keys() - known == set()
    code = "from prefect.settings import get_current_settings as s; v = s().server.services.db_vacuum; "
    code += "print(v.enabled_vacuum_types >= {'events', 'flow_runs'}, v.retention_period.days)"
    read = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **ours}, capture_output=True, text=True, check=True
    )
    assert read.stdout.split() == ["True", "90"]


def test_compose_hands_on_all_that_is_set_by_environment() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    ours = {
        name for one in ("setup", "worker") for name in services[one]["environment"] if name.startswith("PAIRMILL_")
    }
    readme = set(re.findall(r"PAIRMILL_[A-Z_]+", (ROOT / "README.md").read_text(encoding="utf-8")))
    of_tests = {"PAIRMILL_KILLS", "PAIRMILL_KILLS_SEED", "PAIRMILL_LIVE_MODEL"}
    # The image has a place for the state, which is a volume.
    assert readme - of_tests - {"PAIRMILL_STATE"} == ours


@pytest.mark.deployments
def test_compose_takes_its_file_and_hands_keys_to_the_worker_alone() -> None:
    if not shutil.which("docker-compose"):
        assert not os.environ.get("CI"), "docker-compose is not installed"
        pytest.skip("docker-compose is not installed: apt-get install docker-compose")
    keys = {"AWS_SECRET_ACCESS_KEY": "the-secret", "OPENAI_API_KEY": "the-key"}
    environment = {"PATH": os.environ["PATH"], "POSTGRES_PASSWORD": "a-password", **keys}
    command = ["docker-compose", "--file", str(COMPOSE), "config"]
    read = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert read.returncode == 0, read.stderr
    services = yaml.safe_load(read.stdout)["services"]
    assert {name for name, one in services.items() if keys.items() <= one["environment"].items()} == {"worker"}
    assert read.stdout.count("the-secret") == read.stdout.count("the-key") == 1
    refused = subprocess.run(command, env={"PATH": os.environ["PATH"]}, check=False, capture_output=True, text=True)
    assert "set a password for the database" in refused.stderr


# From here on: a real server, worker and browser; pytest -m deployments


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_a_schedule_publishes_the_day_before_and_the_run_says_so(stack: Stack) -> None:
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
            nightly.id, schedule.id, active=True, schedule=CronSchedule(cron="* * * * *", timezone="UTC")
        )

        def look() -> Any:
            # The first one: a minute later the next one begins, and has nothing to do.
            runs = [run for day in days for run in read_runs(f"nightly-{day}")]
            first = min(runs, key=lambda run: run.expected_start_time, default=None)
            return first if first and first.state.is_final() else None

        run = wait_for("a nightly run", look)
        client.update_deployment_schedule(nightly.id, schedule.id, active=False)
    day = run.name.removeprefix("nightly-")
    assert day == (run.expected_start_time - timedelta(days=1)).date().isoformat()
    assert run.state.message.startswith(f"{day}: published 20 pairs, 0 rejected")
    assert stack.published()[day] == 20
    assert read_artifact("run-progress", run.id).data == 100.0
    assert "pairmill" in run.tags
    assert {"generate shard 1/1", "validate shard 1/1"} <= set(read_steps(run.id))
    report = str(read_artifact("run-report", run.id).data)
    page = f"{os.environ['AWS_ENDPOINT_URL']}/{stack.bucket.removeprefix('s3://')}/out/runs/{run.id}.html"
    assert f"(<{page}>)" in report


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
        opened = browser.new_page(viewport={"width": 1280, "height": 900}, timezone_id="America/Los_Angeles")
        opened.set_default_timeout(300_000)
        yield opened
        opened.screenshot(path=tmp_path / "last.png")
        browser.close()


def fill_backfill_form(page: Any, stack: Stack) -> None:
    """Open the form of `backfill` and choose a model and the 3rd and 4th of July 2026, the month before the page's."""
    page.goto(f"{stack.ui}/deployments")
    page.locator("a[href*='/deployments/deployment/']", has_text="backfill").click()
    page.get_by_text("Run", exact=True).last.click()
    page.get_by_text("Custom run").click()
    for day, shown in (("3", "Jul 3rd, 2026"), ("4", "Jul 4th, 2026")):
        page.get_by_text("Select date").first.click()
        page.locator(".p-calendar-header__before button").click()
        page.locator(".p-calendar-date-picker__date--in-month").get_by_text(day, exact=True).click()
        page.get_by_role("button", name="Apply").click()
        page.get_by_text(shown).wait_for()
    assert 'Property is type "None"' not in page.inner_text("body")
    page.locator("textarea").first.fill("openai/chosen-in-the-browser")


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_a_person_backfills_two_days_in_the_browser_and_reads_what_they_brought(
    stack: Stack, page: Any, tmp_path: Path
) -> None:
    # The days are those that were chosen, also on an evening in America, when they are the next ones in UTC.
    page.clock.set_system_time("2026-08-15T20:00:00-07:00")
    month = "2026-07"
    for day, rows in (("03", 12), ("04", 7)):
        stack.put_day(f"{month}-{day}", rows)
    answers: list[int] = []

    def noted(answer: Any) -> None:
        if "create_flow_run" in answer.url:
            answers.append(answer.status)

    page.on("response", noted)

    def submitted() -> bool:
        fill_backfill_form(page, stack)
        page.screenshot(path=tmp_path / "form.png")
        form_address = page.url
        for _ in range(5):
            # On a busy machine this server's SQLite may refuse: "Oops. Something went wrong."
            page.get_by_role("button", name="Submit").click()
            page.wait_for_timeout(5_000)
            if page.url != form_address:
                return True
        return False

    try:
        wait_for("the form to be taken", submitted)
    except AssertionError as error:
        raise AssertionError(f"{error}; answered {answers}: {page.inner_text('body')}") from error

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


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_a_second_night_waits_until_the_first_has_ended(stack: Stack) -> None:
    days = ("2026-02-11", "2026-02-12")
    for day in days:
        stack.put_day(day, 4)
    stack.model.held = True
    try:
        for day in days:
            start_partition(day, "nightly")
        first = wait_for("a call", lambda: next(filter(stack.prompts, days), None))
        (second,) = set(days) - {first}
        # As long as the workers need to begin a run that may begin.
        wait_for("it to be late", lambda: read_runs(f"nightly-{second}")[0].state.name == "Late")
        assert not stack.prompts(second)
    finally:
        stack.model.held = False
    assert {ended_run(f"nightly-{day}").state.name for day in days} == {"Completed"}


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_cancelling_a_backfill_cancels_its_days_and_they_stop_paying(stack: Stack) -> None:
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

        def silent() -> bool:
            paid = len(stack.model.prompts)
            time.sleep(5)
            return len(stack.model.prompts) == paid and not stack.model.in_flight

        wait_for("the end of all calls", silent)
        assert len(stack.model.prompts) < 4_000
    finally:
        stack.model.latency_seconds = 0.0
    assert stack.published().keys().isdisjoint(days)


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_the_days_of_a_backfill_run_on_both_workers_of_the_pool(stack: Stack) -> None:
    days = [f"2026-01-1{day}" for day in range(3)]
    for day in days:
        stack.put_day(day, 6)
    # One worker cannot take them all, and neither can the one that the backfill does not run on.
    assert len(days) == WORKER_LIMIT + 1
    # None of them ends before all have begun.
    stack.model.held = True
    try:
        start_backfill(days[0], days[-1], max_parallel=len(days))
        wait_for("the first call of every day", lambda: all(map(stack.prompts, days)))
    finally:
        stack.model.held = False
    ended = ended_run(f"backfill-{days[0]}-to-{days[-1]}")
    assert ended.state.name == "Completed", ended.state.message
    assert [stack.published()[day] for day in days] == [6] * len(days)
    taken = re.compile("Flow run 'partition-2026-01-1.' submitted")
    shares = {worker: len(taken.findall(stack.log(worker).read_text())) for worker in WORKERS}
    assert sum(shares.values()) == len(days)
    assert all(shares.values()), shares


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_what_days_of_a_backfill_have_in_common_is_paid_for_once(stack: Stack) -> None:
    days = ("2026-01-21", "2026-01-22")
    for day in days:
        stack.put_day(day, 6, common=8)
    stack.model.latency_seconds = 2.0
    try:
        start_backfill(*days, max_parallel=2)
        ended = ended_run(f"backfill-{days[0]}-to-{days[1]}")
    finally:
        stack.model.latency_seconds = 0.0
    assert ended.state.message == "2 days done: 20 pairs accepted, 20 calls paid"
    assert len(stack.prompts("any day")) == 8
    assert sum(stack.published()[day] for day in days) == 20


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_descriptions_and_their_pairs_come_out_of_nothing_on_the_pool(stack: Stack) -> None:
    from prefect.deployments import run_deployment

    stack.model.default = lister
    parameters = {"then_generate": True, "descriptions": 12, "destination": f"{stack.bucket}/nothing"}
    run: Any = run_deployment("brainstorm/brainstorm", parameters=parameters, timeout=RUN_SECONDS)
    stack.model.forget()
    assert (run.state.name, "published 12 pairs" in str(run.state.message)) == ("Completed", True), run.state.message
    pairs = read_table(f"{stack.bucket}/nothing/pairs")
    assert family(str(pairs["run_id"][0])) == ("brainstorm", ["brainstorm", "short-text-matching"])


@pytest.mark.deployments
@pytest.mark.timeout(1200)
def test_a_day_that_fails_on_the_pool_stops_no_other_and_is_named(stack: Stack) -> None:
    stack.put_day("2026-02-02", 5)
    run = start_backfill("2026-02-01", "2026-02-02")
    ended = ended_run("backfill-2026-02-01-to-2026-02-02")
    assert (ended.id, ended.state.name) == (run.id, "Failed")
    assert ended.state.message.startswith("1 of 2 days failed: 2026-02-01. 2026-02-01: No task descriptions under")
    assert stack.published()["2026-02-02"] == 5
