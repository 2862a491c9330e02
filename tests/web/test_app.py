import subprocess
import sys

import pytest

ROUTES = {
    ("GET", "/last_observation"),
    ("GET", "/last_observation/{name}"),
    ("GET", "/api/v1/last_observation"),
    ("GET", "/api/v1/last_observation/{name}"),
    ("GET", "/api/v1/databases"),
    ("POST", "/api/v1/databases"),
    ("GET", "/api/v1/databases/{name}"),
    ("PATCH", "/api/v1/databases/{name}"),
    ("DELETE", "/api/v1/databases/{name}"),
    ("POST", "/api/v1/databases/{name}/observe"),
    ("GET", "/api/v1/databases/{name}/transitions"),
    ("GET", "/api/v1/workers"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
}


async def test_the_schema_lists_every_route_and_no_other(web):
    schema = (await web.get("/openapi.json")).json()
    found = {
        (method.upper(), path) for path, methods in schema["paths"].items() for method in methods
    }
    assert found == ROUTES
    one = schema["paths"]["/last_observation/{name}"]["get"]
    assert one["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "LastObservationShape"
    )
    assert "application/problem+json" in one["responses"]["4XX"]["content"]
    assert "HTTPValidationError" not in str(schema)
    assert schema["paths"]["/api/v1/databases"]["post"]["security"]


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/nothing", "/api/v1", "/last_observation/a/b"]
)
async def test_what_is_not_there_is_a_problem(web, path):
    answer = await web.get(path)
    assert (answer.status_code, answer.json()["status"]) == (404, 404)
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


async def test_other_methods_are_problems(web):
    answer = await web.put("/last_observation")
    assert (answer.status_code, answer.headers["Content-Type"]) == (405, "application/problem+json")


def test_last_observation_loads_neither_registry_nor_feeler():
    code = """
import sys, monitor.web.last_observation
apart = ("sqlalchemy", "psycopg", "rq", "monitor.registry", "monitor.feeler")
sys.exit(" ".join(name for name in sys.modules if name.startswith(apart)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
