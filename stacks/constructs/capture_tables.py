"""Captures, outputs, ground truth and drift as tables of Athena. Nothing crawls: partitions are computed from
the catalog and the clock (partition projection), so that a capture can be queried as soon as it is there.

https://docs.aws.amazon.com/athena/latest/ug/partition-projection.html
"""

from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue

from catalog.model import ModelSpec
from stacks.base import PlatformStack
from stacks.constructs.metrics import VARIANT

CAPTURES, OUTPUTS, GROUND_TRUTH, DRIFT = "captures", "outputs", "ground_truth", "drift"

RESULTS = "athena"
"""Folder of the data bucket for what queries answered; it goes after a week (stacks/storage.py)."""

FIRST_HOUR = "2026/01/01/00"
"""Where time begins in the tables: partitions before it are not looked for."""

MOST_SCANNED = 100 * 1024**3
"""Bytes that one query may read, half a dollar's worth: one that forgets the hour fails, not the budget."""

_SIDE = "struct<observedcontenttype:string,mode:string,data:string,encoding:string>"

COLUMNS: Mapping[str, Mapping[str, str]] = {
    CAPTURES: {
        "capturedata": f"struct<endpointinput:{_SIDE},endpointoutput:{_SIDE}>",
        "eventmetadata": "struct<eventid:string,inferenceid:string,inferencetime:string>",
        "eventversion": "string",
    },
    # A line of what a model answers to `application/jsonlines`.
    OUTPUTS: {"model_name": "string", "model_version": "string", "id": "string", "outputs": "string"},
    GROUND_TRUTH: {"request_id": "string", "outputs": "string"},
    DRIFT: {
        "version": "string",
        "sha256": "string",
        "since": "string",
        "until": "string",
        "side": "string",
        "name": "string",
        "kind": "string",
        "test": "string",
        "p_value": "double",
        "psi": "double",
        "missing": "double",
        "missing_before": "double",
        "strange": "double",
        "samples": "bigint",
        "drifted": "array<string>",
    },
}
"""The JSON members that are columns, with their types in Hive's words; the SerDe lowers names."""

QUERIES = {
    "requests-by-version": (
        "How many captured requests each version answered, and when",
        """
SELECT endpoint, json_extract_scalar(capturedata.endpointoutput.data, '$.model_version') AS version,
       count(*) AS requests, min(eventmetadata.inferencetime) AS first_at,
       max(eventmetadata.inferencetime) AS last_at
FROM captures
WHERE hour >= date_format(current_timestamp - interval '24' hour, '%Y/%m/%d/%H')
GROUP BY 1, 2
ORDER BY 1, 5 DESC
""",
    ),
    "one-request": (
        "What a request asked, and what it was answered: put its x-request-id in",
        """
SELECT capturedata.endpointinput.data AS asked, capturedata.endpointoutput.data AS answered
FROM captures
WHERE hour >= date_format(current_timestamp - interval '24' hour, '%Y/%m/%d/%H')
  AND eventmetadata.inferenceid = '00000000-0000-0000-0000-000000000000'
""",
    ),
    "answers": (
        "The first output of each answer, the most frequent first",
        """
SELECT endpoint, json_extract_scalar(capturedata.endpointoutput.data, '$.outputs[0].name') AS output,
       json_extract_scalar(capturedata.endpointoutput.data, '$.outputs[0].data[0]') AS first_value,
       count(*) AS requests
FROM captures
WHERE hour >= date_format(current_timestamp - interval '24' hour, '%Y/%m/%d/%H')
GROUP BY 1, 2, 3
ORDER BY 4 DESC
LIMIT 100
""",
    ),
    "answers-of-batches": (
        "The first output of what was kept of batches, the most frequent first",
        """
SELECT model, model_version, json_extract_scalar(outputs, '$[0].name') AS output,
       json_extract_scalar(outputs, '$[0].data[0]') AS first_value, count(*) AS answers
FROM outputs
WHERE day >= date_format(current_timestamp - interval '7' day, '%Y/%m/%d')
GROUP BY 1, 2, 3, 4
ORDER BY 5 DESC
LIMIT 100
""",
    ),
    "right-or-wrong": (
        "Answers beside what was true, where somebody said it",
        """
SELECT truth.model, eventmetadata.inferenceid AS request_id, truth.outputs AS truth,
       json_extract_scalar(capturedata.endpointoutput.data, '$.outputs[0].data[0]') AS first_value
FROM captures
JOIN ground_truth AS truth ON truth.request_id = eventmetadata.inferenceid
WHERE hour >= date_format(current_timestamp - interval '168' hour, '%Y/%m/%d/%H')
""",
    ),
    "drift-over-time": (
        "The features that moved most, comparison by comparison",
        """
SELECT model, until, version, side, name, psi, p_value, samples
FROM drift
WHERE day >= date_format(current_timestamp - interval '30' day, '%Y/%m/%d') AND psi >= 0.1
ORDER BY until DESC, psi DESC
""",
    ),
}
"""Saved queries: name -> what it answers, and its text, in words that Trino and DuckDB share."""


class CaptureTables:
    """The database `inference_<env>`, its tables, and the workgroup `inference-<env>` with saved queries.

    Args:
        models: all that there are: batches of any may be kept.
        capturing: those that capture requests and answers.
    """

    def __init__(
        self, stack: PlatformStack, models: Sequence[ModelSpec], capturing: Sequence[ModelSpec]
    ) -> None:
        self._stack = stack
        self._bucket = stack.bucket_name("data")
        self._database = glue.CfnDatabase(
            stack,
            "Database",
            catalog_id=stack.account,
            database_input=glue.CfnDatabase.DatabaseInputProperty(
                name=stack.names.database,
                description="Captured requests and answers, outputs of batches, ground truth, and drift",
            ),
        )
        names = sorted(model.name for model in capturing)
        endpoints = sorted(stack.names.model(model.name, model.home) for model in capturing)
        self._table(
            CAPTURES,
            "Requests and answers that models have kept",
            f"captures/${{endpoint}}/{VARIANT}/${{hour}}/",
            {"endpoint": _one_of(endpoints), "hour": _each("HOURS", "yyyy/MM/dd/HH", FIRST_HOUR)},
        )
        self._table(
            OUTPUTS,
            "What models answered to batches, a document a line, by whoever ran them",
            "outputs/${model}/${day}/",
            {"model": _one_of(sorted(model.name for model in models)), "day": _each_day()},
        )
        self._table(
            GROUND_TRUTH,
            "What would have been right, by the request's id",
            "ground-truth/${model}/",
            {"model": _one_of(names)},
        )
        self._table(
            DRIFT,
            "What comparisons with the baseline found, a row for each feature",
            "drift/features/${model}/${day}/",
            {"model": _one_of(names), "day": _each_day()},
        )
        workgroup = self._workgroup()
        for name, (question, text) in QUERIES.items():
            query = athena.CfnNamedQuery(
                stack,
                f"Query-{name}",
                database=stack.names.database,
                work_group=stack.names.prefix,
                name=name,
                description=question,
                query_string=text.strip(),
            )
            query.add_dependency(workgroup)

    def _table(
        self, name: str, description: str, folder: str, partitions: Mapping[str, Mapping[str, str]]
    ) -> None:
        first = folder.partition("$")[0]
        projection = {
            f"projection.{column}.{key}": value
            for column, settings in partitions.items()
            for key, value in settings.items()
        }
        columns = glue.CfnTable.ColumnProperty
        table = glue.CfnTable(
            self._stack,
            f"Table-{name}",
            catalog_id=self._stack.account,
            database_name=self._stack.names.database,
            table_input=glue.CfnTable.TableInputProperty(
                name=name,
                description=description,
                table_type="EXTERNAL_TABLE",
                parameters={
                    "EXTERNAL": "TRUE",
                    "classification": "json",
                    "projection.enabled": "true",
                    "storage.location.template": f"s3://{self._bucket}/{folder}",
                    **projection,
                },
                partition_keys=[columns(name=column, type="string") for column in partitions],
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    location=f"s3://{self._bucket}/{first}",
                    input_format="org.apache.hadoop.mapred.TextInputFormat",
                    output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                    columns=[columns(name=column, type=kind) for column, kind in COLUMNS[name].items()],
                    serde_info=glue.CfnTable.SerdeInfoProperty(
                        serialization_library="org.openx.data.jsonserde.JsonSerDe",
                        # A client's line that is no JSON is a row of nulls, not the end of the query.
                        parameters={"ignore.malformed.json": "true"},
                    ),
                ),
            ),
        )
        table.add_dependency(self._database)

    def _workgroup(self) -> athena.CfnWorkGroup:
        group = athena.CfnWorkGroup
        return group(
            self._stack,
            "Workgroup",
            name=self._stack.names.prefix,
            description="Queries of captures, outputs, ground truth and drift",
            recursive_delete_option=not self._stack.environment_config.retention.keep_data,
            work_group_configuration=group.WorkGroupConfigurationProperty(
                enforce_work_group_configuration=True,
                publish_cloud_watch_metrics_enabled=True,
                bytes_scanned_cutoff_per_query=MOST_SCANNED,
                requester_pays_enabled=False,
                result_configuration=group.ResultConfigurationProperty(
                    output_location=f"s3://{self._bucket}/{RESULTS}/",
                    expected_bucket_owner=cdk.Aws.ACCOUNT_ID,
                    encryption_configuration=group.EncryptionConfigurationProperty(
                        encryption_option="SSE_KMS", kms_key=self._stack.key("data").key_arn
                    ),
                ),
            ),
        )


def _one_of(values: Sequence[str]) -> dict[str, str]:
    return {"type": "enum", "values": ",".join(values)}


def _each_day() -> dict[str, str]:
    return _each("DAYS", "yyyy/MM/dd", FIRST_HOUR[:10])


def _each(unit: str, form: str, first: str) -> dict[str, str]:
    return {"type": "date", "format": form, "range": f"{first},NOW", "interval": "1", "interval.unit": unit}
