"""How long an environment keeps things, and what it records: `retention:` and `audit:` of its file."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from catalog.section import Items, Section, each_once, refusal, refuse

# What CloudWatch Logs accepts, PutRetentionPolicy.
LogDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]

LONGEST = 36500
"""Days: what S3 Object Lock takes at most, a hundred years."""


class Payloads(Section):
    """What becomes of inputs, outputs and captures in the data bucket."""

    infrequent_access_days: Annotated[
        int,
        Field(
            ge=30,
            le=LONGEST,
            description="Days after which outputs and captures move to infrequent access. S3 takes 30 at "
            "least, and leaves objects below 128 KB where they are.",
        ),
    ] = 30
    archive_days: Annotated[
        int,
        Field(
            ge=60,
            le=LONGEST,
            description="Days after which they move on to Glacier Instant Retrieval: at least 30 after "
            "`infrequent_access_days`.",
        ),
    ] = 90
    delete_days: Annotated[
        int | None,
        Field(
            ge=61,
            le=LONGEST,
            description="Days after which inputs, outputs and captures are deleted, later than "
            "`archive_days`; Glacier charges for 90 days at least. Left out: never.",
        ),
    ] = None

    @model_validator(mode="after")
    def _in_order(self) -> "Payloads":
        if self.archive_days < self.infrequent_access_days + 30:
            refuse(
                refusal(
                    self.archive_days,
                    f"must be >= {self.infrequent_access_days + 30}: S3 keeps objects for 30 days in "
                    "infrequent access before it moves them on",
                    "archive_days",
                )
            )
        if self.delete_days is not None and self.delete_days <= self.archive_days:
            refuse(
                refusal(
                    self.delete_days,
                    f"must be > {self.archive_days}, archive_days: what is deleted first is never archived",
                    "delete_days",
                )
            )
        return self


class Retention(Section):
    """How long things are kept."""

    logs_days: Annotated[
        LogDays,
        Field(description="Days for which logs are kept; one of the values that CloudWatch Logs offers."),
    ] = 30
    access_logs_days: Annotated[
        int, Field(ge=1, le=LONGEST, description="Days for which the buckets' access logs are kept.")
    ] = 400
    keep_data: Annotated[
        bool,
        Field(
            description="Whether buckets, keys and user pools outlive the deletion of their stack. `false` "
            "deletes artifacts and logs with it."
        ),
    ] = True
    payloads: Annotated[
        Payloads, Field(description="What becomes of inputs, outputs and captures in the data bucket.")
    ] = Payloads()
    releases: Annotated[
        int,
        Field(
            ge=2,
            le=50,
            description="Releases of a model whose artifacts are kept: the live one, the one before it, and "
            "so on.",
        ),
    ] = 5
    retired_days: Annotated[
        int,
        Field(
            ge=7,
            le=LONGEST,
            description="Days for which an older artifact stays usable before S3 deletes it. A release in "
            "that time keeps it.",
        ),
    ] = 30
    deleted_days: Annotated[
        int,
        Field(
            ge=1,
            le=LONGEST,
            description="Days for which a deleted or overwritten object of any bucket can be brought back.",
        ),
    ] = 30


class ObjectLock(Section):
    """Audit records that nobody can delete or overwrite."""

    mode: Annotated[
        Literal["governance", "compliance"],
        Field(
            description="`governance`: only whoever holds `s3:BypassGovernanceRetention` may delete early. "
            "`compliance`: nobody may, root included, nor shorten the time."
        ),
    ]
    days: Annotated[
        int, Field(ge=1, le=LONGEST, description="Days for which each record is locked from its delivery.")
    ]


class Audit(Section):
    """The record of who did what, and the account's services that watch over it."""

    trail: Annotated[
        bool,
        Field(
            description="Whether the environment has its own CloudTrail trail. `false` where an organization "
            "trail already covers the account."
        ),
    ] = True
    data_events: Annotated[
        Items[Literal["models", "data", "functions"]],
        Field(
            description="Whose single reads and writes the trail records: objects of the `models` and of the "
            "`data` bucket, invocations of the environment's `functions`. Billed by event."
        ),
    ] = ("models", "data")
    alarms: Annotated[
        bool,
        Field(
            description="Alarms on what the trail records of the whole account: use of root, refused calls, "
            "keys about to be deleted, changes by hand. `false` where another environment, or a "
            "SIEM, watches already."
        ),
    ] = True
    archive_days: Annotated[
        int,
        Field(ge=0, le=LONGEST, description="Days after which records move to Glacier Instant Retrieval."),
    ] = 90
    delete_days: Annotated[
        int | None,
        Field(
            ge=1,
            le=LONGEST,
            description="Days after which records are deleted, later than `archive_days`. Left out: never.",
        ),
    ] = None
    object_lock: Annotated[
        ObjectLock | None,
        Field(
            description="Lock each record from its delivery on. It may be added later, and its days changed; "
            "S3 never takes it off a bucket again."
        ),
    ] = None
    guard_duty: Annotated[
        bool, Field(description="Switch GuardDuty on in the account and region, if it is not.")
    ] = False
    inspector: Annotated[
        Items[Literal["ecr", "lambda"]],
        Field(description="What Inspector scans for vulnerabilities: container images, functions."),
    ] = ()
    config_rules: Annotated[
        bool,
        Field(
            description="AWS Config rules on the platform's kinds of resources, and the account's recorder "
            "if there is none."
        ),
    ] = False
    access_analyzer: Annotated[
        bool,
        Field(description="Have IAM Access Analyzer report what is shared outside the account."),
    ] = False
    trusted_advisor: Annotated[
        bool,
        Field(
            description="Count Trusted Advisor's findings once a day, as metrics and log lines. Needs a "
            "support plan, Business or higher."
        ),
    ] = False

    @field_validator("data_events", "inspector")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return each_once(value)

    @model_validator(mode="after")
    def _consistent(self) -> "Audit":
        if self.config_rules and not self.trail:
            refuse(refusal(True, "delivers to the audit bucket: needs trail: true", "config_rules"))
        if self.object_lock and not self.trail:
            locked = self.object_lock.model_dump()
            refuse(refusal(locked, "locks the trail's records: needs trail: true", "object_lock"))
        if self.delete_days is not None:
            if self.delete_days <= self.archive_days:
                refuse(
                    refusal(self.delete_days, f"must be > {self.archive_days}, archive_days", "delete_days")
                )
            if self.object_lock and self.delete_days < self.object_lock.days:
                refuse(
                    refusal(
                        self.delete_days,
                        f"must be >= {self.object_lock.days}: until then object_lock keeps the records",
                        "delete_days",
                    )
                )
        return self
