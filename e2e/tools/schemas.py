"""Reads a document with schemas from standard input: each must be a schema, and each example valid."""

import json
import sys

from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import validate


def examples(node):
    """Every schema with examples, and every media type with one."""
    if isinstance(node, dict):
        if isinstance(node.get("examples"), list) and ("type" in node or "$ref" in node):
            for example in node["examples"]:
                yield node, example
        if "example" in node and "type" in node:
            yield node, node["example"]
        if "schema" in node and "example" in node:
            yield node["schema"], node["example"]
        if "payload" in node and isinstance(node.get("examples"), list):
            for example in node["examples"]:
                if "payload" in example:
                    yield node["payload"], example["payload"]
                    yield node["headers"], example["headers"]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        yield from examples(child)


document = json.load(sys.stdin)
if "openapi" in document:
    validate(document)
    dialect = OAS30Validator if document["openapi"].startswith("3.0.") else Draft202012Validator
else:
    # AsyncAPI's own schemas are a superset of this draft.
    dialect = Draft7Validator
for name, schema in document["components"]["schemas"].items():
    dialect.check_schema(schema)
found = 0
for schema, example in examples(document):
    # References lead to the document's components, so those have to be there.
    whole = {"allOf": [schema], "components": document["components"]}
    dialect(whole, format_checker=FormatChecker()).validate(example)
    found += 1
print(f"{found} examples are valid")
