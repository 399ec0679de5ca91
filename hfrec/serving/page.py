"""The page `/docs`: every route, what it takes and gives, by the OpenAPI document. It loads nothing from elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h2 {{ border-top: 1px solid #ccc; padding-top: 1rem; }}
pre {{ background: #f4f4f4; padding: .7rem; overflow-x: auto; }}
table {{ border-collapse: collapse; }} td, th {{ text-align: left; vertical-align: top; padding: .1rem 1rem .1rem 0; }}
</style></head><body>
<h1>{title}</h1>
<p>{summary} {description} The same for programs: <a href="openapi.json">openapi.json</a>.</p>
{routes}
</body></html>
"""


def docs_page(document: Mapping[str, Any], base: str) -> str:
    """The page as HTML.

    Args:
        document: What the application says of itself (OpenAPI 3.1).
        base: Where it answers, for the examples, such as `http://localhost:8000`.
    """
    about = {name: escape(document["info"].get(name, "")) for name in ("title", "summary", "description")}
    schemas = document["components"]["schemas"]
    ways = document["paths"].items()
    sections = [_section(method, path, way, schemas, base) for path, found in ways for method, way in found.items()]
    return _PAGE.format(**about, routes="\n".join(sections))


def _section(method: str, path: str, way: Mapping[str, Any], schemas: Mapping[str, Any], base: str) -> str:
    body = _resolved(_json_schema(way.get("requestBody", {})), schemas)
    parameters = way.get("parameters", [])
    takes = [(entry["name"], entry["schema"], entry.get("description", "")) for entry in parameters]
    takes += [(name, field, field.get("description", "")) for name, field in body.get("properties", {}).items()]
    needed = {entry["name"] for entry in parameters if entry.get("required")} | set(body.get("required", ()))
    rows = [(name, _type(field, schemas), _default(name, field, needed), text) for name, field, text in takes]
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code> {escape(way.get('summary', ''))}</h2>"]
    parts += [f"<p>{escape(way.get('description', ''))}</p>"]
    parts += [_table(("it takes", "as", "default", ""), rows)] if rows else []
    examples = "\n".join(_curl(method, base + path, parameters, example) for example in body.get("examples", [None]))
    parts += [f"<pre>{escape(examples)}</pre>"]
    for status, answer in way["responses"].items():
        example = answer.get("content", {}).get("application/json", {}).get("example")
        if example is not None:
            parts.append(f"<p>{status}:</p><pre>{escape(json.dumps(example, indent=1))}</pre>")
    answers = [
        (status, answer["description"], _type(_json_schema(answer), schemas) if _json_schema(answer) else "")
        for status, answer in way["responses"].items()
    ]
    return "\n".join([*parts, _table(("status", "", "it gives"), answers)])


def _curl(method: str, url: str, parameters: list[Mapping[str, Any]], example: Any) -> str:
    """A request to copy into a terminal."""
    given = [(p["in"], p["name"], p["schema"]["examples"][0]) for p in parameters if "examples" in p["schema"]]
    asked = urlencode([(name, value) for place, name, value in given if place == "query"])
    words = ["curl", "-s", url + (f"?{asked}" if asked else "")]
    words += [word for place, name, value in given if place == "header" for word in ("-H", f"{name}: {value}")]
    if example is not None:
        words += ["-H", "content-type: application/json", "-d", json.dumps(example)]
    elif method != "get":
        words += ["-X", method.upper()]
    return shlex.join(words)


def _json_schema(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = holder.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _resolved(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference means; of an optional body, what it is where there is one."""
    if "anyOf" in schema:
        schema = next(choice for choice in schema["anyOf"] if choice.get("type") != "null")
    found: Mapping[str, Any] = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _type(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    """A type in words."""
    if "anyOf" in schema:
        return " or ".join(_type(choice, schemas) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if "$ref" in schema:
        fields = _resolved(schema, schemas)["properties"]
        return "{" + ", ".join(f"{name}: {_type(field, schemas)}" for name, field in fields.items()) + "}"
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'], schemas)}"
    return str(schema.get("type", "anything"))


def _default(name: str, schema: Mapping[str, Any], needed: set[str]) -> str:
    return "needed" if name in needed else json.dumps(schema["default"]) if "default" in schema else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"
