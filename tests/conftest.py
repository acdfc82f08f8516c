"""Real parts on loopback, shared by the whole session: S3, a model server, Prefect."""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.stack import Stack

# Before anything imports Prefect or litellm: nothing of the user's own is read or written.
_HOME = tempfile.mkdtemp(prefix="pairmill-tests-")
USERS_ENVIRONMENT = dict(os.environ)
os.environ.update(
    DO_NOT_TRACK="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_HOME=str(Path(_HOME) / "prefect"),
    PREFECT_LOGGING_LEVEL="CRITICAL",
    LITELLM_LOCAL_MODEL_COST_MAP="True",
    LITELLM_LOG="ERROR",
    OPENAI_API_KEY="test-key",
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test-secret",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_CONFIG_FILE=str(Path(_HOME) / "aws-config"),
    AWS_SHARED_CREDENTIALS_FILE=str(Path(_HOME) / "aws-credentials"),
    PAIRMILL_STATE=str(Path(_HOME) / "state"),
)
for _name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "PREFECT_API_URL"):
    os.environ.pop(_name, None)

import shutil  # noqa: E402

import boto3  # noqa: E402
import hypothesis  # noqa: E402
import pytest  # noqa: E402

from flows.servers import ROOT, serve, start_prefect_api  # noqa: E402
from tests.batch_server import BatchServer  # noqa: E402
from tests.model_server import ModelServer  # noqa: E402
from tests.night import Night  # noqa: E402
from tests.s3_proxy import S3Proxy  # noqa: E402
from tests.tally import LINES, tally  # noqa: E402
from tests.zygote import Zygote  # noqa: E402

# A busy machine is no reason to fail, and what fails once fails each time.
hypothesis.settings.register_profile(
    "no clock", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("no clock")


@pytest.fixture(scope="session", autouse=True)
def _clean_home() -> Iterator[None]:
    yield
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture
def far_from_utc() -> Iterator[None]:
    """Put this process into a time zone half a day away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Pacific/Auckland")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Run an S3 server and point every library at it."""
    with serve("moto.server", "-H", "127.0.0.1", "-p", "{port}") as server:
        server.wait()
        os.environ["AWS_ENDPOINT_URL"] = server.url
        yield server.url
        del os.environ["AWS_ENDPOINT_URL"]


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    """Return the URI of a bucket of this test's own."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def _s3_proxy(s3_endpoint: str) -> Iterator[S3Proxy]:
    with serve("tests.s3_proxy", "{port}", s3_endpoint) as server:
        server.wait()
        yield S3Proxy(server.url)


@pytest.fixture
def s3_proxy(_s3_proxy: S3Proxy) -> Iterator[S3Proxy]:
    """Return the S3 server that notes requests and fails to order, with nothing left of the test before."""
    _s3_proxy.forget()
    yield _s3_proxy
    _s3_proxy.forget()


@pytest.fixture
def proxy(s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> S3Proxy:
    """Return it as the one storage that there is."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.url)
    return s3_proxy


@pytest.fixture
def lane_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the lane to the model and the address, with a gateway's key at hand."""
    from tasks.clients import lane
    from tasks.clients.wire import HEADER_SETTINGS

    monkeypatch.setenv("LITELLM_PROXY_API_KEY", "proxy-key")
    for name in (lane.SETTING, *HEADER_SETTINGS):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def zygote(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Run the process that starts runs of the command line fast."""
    with Zygote(tmp_path_factory.mktemp("zygote"), {"PREFECT_API_URL": prefect_api}) as process:
        yield process


@pytest.fixture(scope="session")
def _model_server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def model_server(_model_server: ModelServer) -> Iterator[ModelServer]:
    """Return the OpenAI-compatible server, with nothing left of the test before."""
    _model_server.begin_test()
    yield _model_server
    _model_server.forget()


@pytest.fixture(scope="session")
def _batch_server() -> Iterator[BatchServer]:
    with BatchServer() as server:
        yield server


@pytest.fixture
def batch_server(_batch_server: BatchServer) -> Iterator[BatchServer]:
    """Return the server with files and batches, with nothing left of the test before."""
    _batch_server.begin_test()
    yield _batch_server
    _batch_server.forget()


@pytest.fixture
def nights(
    bucket: str, zygote: Zygote, model_server: ModelServer, s3_proxy: S3Proxy, tmp_path: Path
) -> Callable[[str], Night]:
    """Return what makes a destination of this name, with its source, and runs over them."""
    return lambda name: Night(bucket, name, zygote, model_server, s3_proxy, tmp_path / "state")


@pytest.fixture
def reader(s3_endpoint: str, tmp_path: Path) -> Iterator[tuple[Callable[[str], None], Path]]:
    """Yield what names the destination that the reader polls, and the file of the states that it saw."""
    path = tmp_path / "states"
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.reader", str(path)],
        cwd=ROOT,
        env={**os.environ, "AWS_ENDPOINT_URL": s3_endpoint},
        stdin=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    write = child.stdin

    def watch(destination: str) -> None:
        write.write(destination + "\n")
        write.flush()

    yield watch, path
    child.kill()
    child.communicate()


@pytest.fixture(scope="session")
def prefect_api(s3_endpoint: str) -> Iterator[str]:
    """Run one Prefect server for every flow of the session."""
    server = start_prefect_api()
    assert server is not None
    server.wait()
    yield f"{server.url}/api"
    server.child.kill()
    server.child.communicate()


@pytest.fixture(scope="session")
def stack(s3_endpoint: str, _model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Stack]":
    """Run a Prefect server with everything deployed and two workers."""
    from tests.stack import run_stack

    with run_stack(tmp_path_factory.mktemp("stack"), _model_server) as running:
        yield running


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name no test after bytes: gzip writes the time into them, and xdist's workers would collect different tests."""
    return argname if isinstance(val, bytes) else None


def shares_out_tests(config: pytest.Config) -> bool:
    """Whether only the tests of faults run: some take minutes, so they are shared out one by one, not by files."""
    return bool(config.option.markexpr == "faults")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Take one worker for each of two cores, and one more where tests wait a third of their time: not in whole runs."""
    return 2 if config.option.markexpr in ("runs", "deployments", "train") else 3


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let a worker that has nothing left take over tests of another one."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if shares_out_tests(config) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal out the tests of faults: of xdist's workers each begins with its own stretch of `items`, and its longest."""
    if shares_out_tests(config):
        items[:] = deal_out(items, int(getattr(config, "workerinput", {}).get("workercount", 1)))


def deal_out(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return `items` in stretches of equal length, of which each begins with its part of those with a time limit.

    The limit tells how long a test takes. Files stay whole but for those of the longest.
    """
    limits = {item: mark.args[0] for item in items if (mark := item.get_closest_marker("timeout"))}
    groups: dict[str, list[pytest.Item]] = {}
    for item in sorted(limits, key=lambda item: -float(limits[item])):
        alone = limits[item] == max(limits.values())
        groups.setdefault(item.nodeid if alone else str(item.path), []).append(item)
    short = [item for item in items if item not in limits]
    dealt: list[pytest.Item] = []
    for first in range(workers):
        size = (len(items) - len(dealt)) // (workers - first)
        stretch = [item for group in list(groups.values())[first::workers] for item in group]
        filling = max(0, size - len(stretch))
        dealt += stretch + short[:filling]
        del short[:filling]
    return dealt + short


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what a worker's tests of faults counted to this process's counts."""
    tally.update(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand a worker's counts to the process that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = dict(tally)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests of faults counted."""
    if tally:
        terminalreporter.section("faults")
    for line in LINES:
        if line in tally:
            terminalreporter.write_line(f"{line:<46}{tally[line]:>8,}")
