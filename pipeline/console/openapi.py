"""The API as an OpenAPI 3.1 description, from the table of endpoints and the types of their objects.  Pure."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline import __version__
from pipeline.config.users import UserRole
from pipeline.console.accounts import SESSION_COOKIE
from pipeline.console.endpoint import Endpoint, Parameter

PREFIX = "/api/v1"
ERRORS = {
    "400": "A value is not accepted.",
    "401": "No session.",
    "403": "The role is not enough, or the request comes from another site's page.",
    "404": "Not found.",
    "408": "The body did not arrive in time.",
    "409": "Busy.",
    "413": "The body is too large.",
    "422": "The content does not fit.",
    "421": "This host name is not served.",
    "429": "Too many wrong passwords.",
    "503": "The store cannot be read, or too many requests.",
}
_IN_PARTS = ("clip", "map_image", "map_tiles")
_OF_ALL = ("401", "403", "421", "503")


class Error(msgspec.Struct, frozen=True):
    """Reply to a request that failed."""

    error: str


def openapi(endpoints: Sequence[Endpoint]) -> bytes:
    """Return the description as JSON."""
    objects = {kind for e in endpoints for kind in (e.body, e.answer) if isinstance(kind, type)} | {Error}
    _, schemas = msgspec.json.schema_components(objects, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(PREFIX + endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    described = {
        "openapi": "3.1.0",
        "info": {
            "title": "dasnet",
            "version": __version__,
            "description": "API of the operator console: docs/http-api.md.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"session": []}, {}],
        "paths": paths,
        "components": {
            "schemas": _without_boolean_schemas(dict(sorted(schemas.items()))),
            "securitySchemes": {"session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE}},
        },
    }
    return msgspec.json.format(msgspec.json.encode(described), indent=1)


def _without_boolean_schemas(schema: Any) -> Any:
    """Return a schema without `items: false`, which generators of clients do not read; `maxItems` says the same."""
    if isinstance(schema, dict):
        return {
            key: _without_boolean_schemas(value)
            for key, value in schema.items()
            if not (key == "items" and value is False)
        }
    return [_without_boolean_schemas(item) for item in schema] if isinstance(schema, list) else schema


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": endpoint.handler, "summary": endpoint.does}
    if endpoint.least_role is not UserRole.VIEWER and endpoint.needs_session:
        operation["description"] = f"Needs the role {endpoint.least_role}."
    parameters = [*map(_path_parameter, re.findall(r"{(\w+)}", endpoint.path)), *map(_query, endpoint.query)]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(endpoint.body)}
    elif endpoint.handler == "trial":
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "content": content}
    if not endpoint.needs_session:
        operation["security"] = []
    operation["responses"] = _responses(endpoint)
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _query(parameter: Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {"name": parameter.name, "in": "query", "schema": parameter.schema}
    return described | ({"description": parameter.means} if parameter.means else {})


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    return _success(endpoint) | {code: _error(ERRORS[code]) for code in _errors(endpoint)}


def _success(endpoint: Endpoint) -> dict[str, Any]:
    if not endpoint.answer:
        return {"204": {"description": "Done."}}
    if isinstance(endpoint.answer, type):
        return {"200": {"description": "The answer.", "content": _json(endpoint.answer)}}
    media_type = endpoint.answer if endpoint.handler != "trial_file" else "*/*"
    content = {media_type: {"schema": {"type": "string"}}}
    ok = {"200": {"description": "The answer.", "content": content}}
    return ok | ({"206": {"description": "A part of it.", "content": content}} if endpoint.handler in _IN_PARTS else {})


def _errors(endpoint: Endpoint) -> list[str]:
    codes = set(_OF_ALL)
    if endpoint.query or endpoint.body is not None:
        codes.add("400")
    if "{" in endpoint.path:
        codes.add("404")
    if endpoint.body is not None:
        codes |= {"408", "413"}
    return sorted(codes | set(endpoint.errors))


def _error(means: str) -> dict[str, Any]:
    return {"description": means, "content": _json(Error)}


def _json(kind: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
