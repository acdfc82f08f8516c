"""What Prefect shows of a flow run that an error ended, and what the terminal."""

from typing import Any

import pytest
from prefect import get_client
from prefect.flow_engine import run_flow

from flows.maintain import maintain
from flows.telling import call
from tasks.core.errors import UsageError

SAID = " is 'gs://b/out', but only s3://bucket/prefix is understood."


def test_an_error_names_the_fields_of_a_deployment_s_form_and_else_the_options(prefect_api: str) -> None:
    wrong = {"destination": "gs://b/out"}
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(maintain), "form", enforce_parameter_schema=False)
        submitted = client.create_flow_run_from_deployment(deployment, parameters=wrong)
    flow: Any = maintain
    state: Any = run_flow(flow, flow_run=submitted, parameters=wrong, return_type="state")
    assert state.message.startswith(f"destination{SAID}")
    assert flow(**wrong, return_state=True).message.startswith(f"--destination{SAID}")
    with pytest.raises(UsageError, match=f"^--destination{SAID}"):
        call(flow, **wrong)
