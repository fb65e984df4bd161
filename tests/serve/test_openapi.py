"""The OpenAPI document, and requests drawn from it: each is answered or refused, none is our fault."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.serve.app import ROUTES
from edgeq.serve.openapi import BODIES, document

DOCUMENT = document(tuple((method, path) for method, path, _ in ROUTES))
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def test_the_document_tells_of_every_endpoint(served):
    assert served.http.get("/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    told = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert told == {(method, path.replace(":path", "")) for method, path, _ in ROUTES}
    read = {path for method, path, _ in ROUTES if method == "POST"} | {"/api/delete"}
    assert read == {*BODIES}, "BODIES has each endpoint's body"
    chat = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = DOCUMENT["components"]["schemas"][chat["$ref"].rpartition("/")[2]]
    assert fields["required"] == ["messages"] and fields["properties"]["n"]["anyOf"][0]["maximum"] == 128


def values(schema) -> st.SearchStrategy:
    """Values that a schema admits."""
    if "$ref" in schema:
        return st.deferred(lambda: values(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]))
    if "anyOf" in schema:
        return st.one_of([values(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        own = {name: values(one) for name, one in schema["properties"].items()}
        needed = {name: own.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional=own)
    if kind == "object":
        roles = st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant", "tool"])})
        message = st.builds(lambda role, content: {**role, "content": content}, roles, st.text(max_size=5) | ANY)
        return st.dictionaries(st.text(max_size=5), ANY, max_size=2) | message
    if kind == "array":
        return st.lists(values(schema.get("items", {})), max_size=3)
    if kind in ("integer", "number"):
        low, high = schema.get("minimum"), schema.get("maximum")
        return st.integers(low, high) if kind == "integer" else st.floats(low, high)
    return {"string": st.text(max_size=8), "boolean": st.booleans(), "null": st.none()}.get(kind, ANY)


@pytest.mark.parametrize("path", BODIES)
def test_requests_of_the_document(served, path):
    ((method, operation),) = ((method, one) for method, one in DOCUMENT["paths"][path].items() if "requestBody" in one)
    schema = operation["requestBody"]["content"]["application/json"]["schema"]

    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(values(schema), st.sampled_from(["counting", "counting:latest", ""]))
    def ask(body, model):
        body = {**body, **({"model": model} if "model" in body and not path.startswith("/models") else {})}
        body = {**body, **({"n": min(body["n"], 2)} if body.get("n") else {})}
        answer = served.http.request(method.upper(), path, content=json.dumps(body).encode())
        if "embed" in path and answer.status_code == 500:
            return  # this model embeds nothing
        assert answer.status_code < 500, answer.text
        assert "api_error" not in answer.text

    ask()
