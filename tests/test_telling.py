"""What Prefect shows of a flow run that an error ended, and what the terminal."""

from typing import Any

import pytest
from prefect import flow, get_client
from prefect.flow_engine import run_flow

from flows.maintain import maintain
from flows.telling import OF_WORKER, call, tell
from tasks.core.errors import AGAIN, RESUME, PairmillError, UsageError

SAID = " is 'gs://b/out', but only s3://bucket/prefix is understood."


def run_deployed(run: Any, parameters: dict[str, Any]) -> Any:
    """Run a flow as Prefect's form would start it, and return its final state."""
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(run), "form", enforce_parameter_schema=False)
        submitted = client.create_flow_run_from_deployment(deployment, parameters=parameters)
    return run_flow(run, flow_run=submitted, parameters=parameters, return_type="state")


def test_an_error_names_the_fields_of_a_deployment_s_form_and_else_the_options(prefect_api: str) -> None:
    wrong = {"destination": "gs://b/out"}
    tidy: Any = maintain
    state = run_deployed(tidy, wrong)
    assert state.message.startswith(f"destination{SAID}")
    assert tidy(**wrong, return_state=True).message.startswith(f"--destination{SAID}")
    with pytest.raises(UsageError, match=f"^--destination{SAID}"):
        call(tidy, **wrong)


@flow(name="fails")
@tell(str)
def fail(said: str) -> str:
    raise PairmillError(said)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"Stopped. {RESUME}", "Stopped. What was paid for is kept: press Retry to go on."),
        (f"Stopped. {AGAIN.capitalize()}.", "Stopped. Press Retry."),
        ("No key for x: set X_API_KEY and run again.", f"No key for x: set X_API_KEY and run again. {OF_WORKER}"),
        ("Set the right API key and run again.", f"Set the right API key and run again. {OF_WORKER}"),
        ("PAIRMILL_ALLOWED_SOURCES does not allow it.", "PAIRMILL_ALLOWED_SOURCES does not allow it."),
    ],
)
def test_an_error_says_in_prefects_ui_what_to_do_there(prefect_api: str, said: str, shown: str) -> None:
    run: Any = fail
    assert run_deployed(run, {"said": said}).message == shown
    assert run(said, return_state=True).message == said
