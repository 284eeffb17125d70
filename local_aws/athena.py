"""What MiniStack's Athena lacks: saved queries by CloudFormation, partition projection, Trino's functions.

MiniStack runs queries in DuckDB, over the files below a table's location. Here a table with partition
projection has the partitions that its template and its settings say, and its columns are those of the
catalog, found in JSON whatever their case, as the SerDe does.
docs.aws.amazon.com/athena/latest/ug/partition-projection-supported-types.html
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from ministack.services import athena, firehose

from local_aws import api
from local_aws.cloudformation import Created, ResourceType, register
from local_aws.wire import Json

# What Trino calls otherwise than DuckDB. Of what is no JSON, a base64 text for one, it extracts NULL.
# date_format takes MySQL's words: strftime's, but for minutes.
_FUNCTIONS = """
CREATE OR REPLACE TEMP MACRO json_extract_scalar(document, path) AS
    json_extract_string(CASE WHEN json_valid(document) THEN document END, path);
CREATE OR REPLACE TEMP MACRO date_format(moment, form) AS
    strftime(moment AT TIME ZONE 'UTC', replace(form, '%i', '%M'));
"""

_QUERY = ("Database", "Description", "Name", "QueryString", "WorkGroup")


def install() -> None:
    register(NAMED_QUERY)
    known_relation, known_rewrite = athena._table_relation, athena._rewrite_data_paths
    known_empty = athena._empty_relation

    def relation(table: Json, files: list[str]) -> str:
        return _projected(table, files) if _is_projected(table) else str(known_relation(table, files))

    def empty_relation(table: Json) -> str:
        return _projected(table, []) if _is_projected(table) else str(known_empty(table))

    async def rewrite(query: str, *arguments: Any) -> Any:
        rewritten, *rest = await known_rewrite(query, *arguments)
        return (_FUNCTIONS + rewritten, *rest)

    athena._table_relation = relation
    athena._empty_relation = empty_relation
    athena._rewrite_data_paths = rewrite


def _is_projected(table: Json) -> bool:
    return bool((table.get("Parameters") or {}).get("projection.enabled") == "true")


def _projected(table: Json, files: list[str]) -> str:
    """A DuckDB relation over the files that lie in one of the table's partitions.

    Args:
        files: copies of everything below the table's location, at the same relative paths.
    """
    keys = [key["Name"] for key in table["PartitionKeys"]]
    partitions: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in files:
        values = _partition(table, keys, path)
        if values is not None:
            _lower_names(Path(path))
            partitions[values].append(path)
    columns = {column["Name"]: column["Type"] for column in table["StorageDescriptor"]["Columns"]}
    if not partitions:
        nulls = [f'NULL::{_type(kind)} AS "{name}"' for name, kind in columns.items()]
        nulls += [f'NULL::VARCHAR AS "{key}"' for key in keys]
        return f"(SELECT {', '.join(nulls)} WHERE false)"
    typed = ", ".join(f"{_text(name)}: {_text(_type(kind))}" for name, kind in columns.items())
    selects = []
    for values, paths in partitions.items():
        added = "".join(f', {_text(value)} AS "{key}"' for key, value in zip(keys, values, strict=True))
        listed = ", ".join(map(_text, paths))
        selects.append(
            f"SELECT *{added} FROM read_json([{listed}], format = 'newline_delimited', "  # noqa: S608 (quoted)
            f"ignore_errors = true, columns = {{{typed}}})"
        )
    return f"({' UNION ALL '.join(selects)})"


def _partition(table: Json, keys: list[str], path: str) -> tuple[str, ...] | None:
    """The values of the partition that a file is in; None of one that is in none."""
    parameters, location = table["Parameters"], table["StorageDescriptor"]["Location"]
    template = parameters["storage.location.template"].removeprefix(location).rstrip("/")
    form = re.escape(template)
    for key in keys:
        # A date's format may have slashes of its own.
        depth = parameters.get(f"projection.{key}.format", "").count("/")
        form = form.replace(re.escape(f"${{{key}}}"), f"(?P<{key}>[^/]+{'/[^/]+' * depth})")
    # MiniStack copies them to a folder of the query's own.
    found = re.search(rf"/ministack-athena-[^/]+/{form}/[^/]+$", path)
    if not found:
        return None
    values = tuple(found[key] for key in keys)
    return values if all(map(lambda key, value: _in_range(parameters, key, value), keys, values)) else None


def _in_range(parameters: Json, key: str, value: str) -> bool:
    kind = parameters[f"projection.{key}.type"]
    if kind == "enum":
        return value in parameters[f"projection.{key}.values"].split(",")
    if kind == "date":
        first, _, last = parameters[f"projection.{key}.range"].partition(",")
        return bool(first <= value and (last == "NOW" or value <= last))
    raise ValueError(f"The embedded AWS does not know the projection type {kind} of {key}.")


def _lower_names(path: Path) -> None:
    """The SerDe finds members by names in lower case; DuckDB as they are. What is no JSON stays."""
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            lines.append(json.dumps(_lowered(json.loads(line))))
        except ValueError:
            lines.append("{}")
    path.write_text("".join(f"{line}\n" for line in lines))


def _lowered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): _lowered(each) for name, each in value.items()}
    return [_lowered(each) for each in value] if isinstance(value, list) else value


def _type(hive: str) -> str:
    return str(firehose._hive_to_duckdb_type(hive))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _create_query(name: str, properties: Json) -> Created:
    request = {member: properties[member] for member in _QUERY if properties.get(member)}
    identifier = api.call("athena", "CreateNamedQuery", {"Name": name, **request})["NamedQueryId"]
    return identifier, {"NamedQueryId": identifier}


NAMED_QUERY = ResourceType(
    "AWS::Athena::NamedQuery",
    create=_create_query,
    update=lambda physical_id, before, after: (physical_id, {"NamedQueryId": physical_id}),
    delete=lambda physical_id, properties: _delete_query(physical_id),
    properties=_QUERY,
    # Every property: Athena's UpdateNamedQuery is not used by CloudFormation.
    replaced_by=_QUERY,
)


def _delete_query(physical_id: str) -> None:
    api.call("athena", "DeleteNamedQuery", {"NamedQueryId": physical_id})
