"""The Model Registry: groups of model packages, their approval, and the events that tell of it.

A package is remembered, never looked into. EventBridge hears of every change, as on AWS:
https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from ministack.core import iam_evaluator
from ministack.core.concurrency import spawn_background
from ministack.core.responses import new_uuid
from ministack.services import eventbridge

from local_aws.sagemaker.control import current, page, refuse_existing, tag
from local_aws.sagemaker.resources import Package, PackageGroup, Resources, Scope, now
from local_aws.wire import Json, Operation, ServiceError, validation_error

PENDING = "PendingManualApproval"
EVENT = "SageMaker Model Package State Change"

KEPT = (
    "ModelPackageDescription", "ModelPackageRegistrationType", "InferenceSpecification", "MetadataProperties",
    "ModelMetrics", "CustomerMetadataProperties", "DriftCheckBaselines", "Domain", "Task", "SamplePayloadUrl",
    "AdditionalInferenceSpecifications", "SkipModelValidation", "SourceUri", "ModelCard", "ModelLifeCycle",
    "ValidationSpecification", "SourceAlgorithmSpecification", "SecurityConfig", "ManagedStorageType",
    "CertifyForMarketplace", "ApprovalDescription",
)  # fmt: skip
"""What is said of a package and answered as it was said."""

REPLACED = (
    "ModelApprovalStatus", "ApprovalDescription", "InferenceSpecification", "ModelCard", "ModelLifeCycle",
    "ModelPackageRegistrationType", "SourceUri",
)  # fmt: skip
"""What UpdateModelPackage sets anew; it adds to the rest."""


class Packages:
    """The operations, for the account and region of the request that is being answered."""

    def operations(self) -> dict[str, Operation]:
        return {
            "CreateModelPackageGroup": self.create_group,
            "DescribeModelPackageGroup": self.describe_group,
            "ListModelPackageGroups": self.list_groups,
            "DeleteModelPackageGroup": self.delete_group,
            "CreateModelPackage": self.create,
            "DescribeModelPackage": self.describe,
            "ListModelPackages": self.list_,
            "UpdateModelPackage": self.update,
            "DeleteModelPackage": self.delete,
        }

    # Groups

    def create_group(self, request: Json) -> Json:
        scope, found = current()
        name = request["ModelPackageGroupName"]
        arn = scope.arn("model-package-group", name)
        refuse_existing(found.package_groups, name, "model package group", arn)
        description = request.get("ModelPackageGroupDescription")
        found.package_groups[name.lower()] = PackageGroup(name, arn, description, _who(), now())
        tag(found, arn, request.get("Tags"))
        return {"ModelPackageGroupArn": arn}

    def describe_group(self, request: Json) -> Json:
        scope, found = current()
        group = found.package_group(scope, _last(request["ModelPackageGroupName"]))
        return {**_summary_of_group(group), "CreatedBy": group.created_by}

    def list_groups(self, request: Json) -> Json:
        _, found = current()
        every = found.package_groups.values()
        return page(request, "ModelPackageGroupSummaryList", every, _summary_of_group)

    def delete_group(self, request: Json) -> Json:
        scope, found = current()
        group = found.package_group(scope, _last(request["ModelPackageGroupName"]))
        if group.packages:
            raise ServiceError(
                "ConflictException",
                f"Model package group {group.arn} still has model packages: delete them first.",
            )
        del found.package_groups[group.name.lower()]
        found.tags.pop(group.arn, None)
        return {}

    # Packages

    def create(self, request: Json) -> Json:
        scope, found = current()
        if "ModelPackageGroupName" not in request:
            raise validation_error(
                "The embedded AWS registers model packages in groups: ModelPackageGroupName must be given."
            )
        if "ModelPackageName" in request:
            raise validation_error(
                "Both ModelPackageName and ModelPackageGroupName are given: only one can be."
            )
        group = found.package_group(scope, _last(request["ModelPackageGroupName"]))
        group.last_version += 1
        arn = scope.arn("model-package", f"{group.name}/{group.last_version}")
        package = Package(
            group.name,
            group.last_version,
            arn,
            {name: request[name] for name in KEPT if name in request},
            request.get("ModelApprovalStatus", PENDING),
            _who(),
            now(),
        )
        group.packages[package.version] = package
        tag(found, arn, request.get("Tags"))
        _tell(scope, package, [])
        return {"ModelPackageArn": arn}

    def describe(self, request: Json) -> Json:
        scope, found = current()
        package = _package(scope, found, request["ModelPackageName"])
        described = {
            **package.said,
            **_summary(package),
            # A package of a group has no name of its own. This is one that DescribeModelPackage takes.
            "ModelPackageName": package.name,
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "CreatedBy": package.created_by,
        }
        if package.modified_by:
            described |= {"LastModifiedBy": package.modified_by, "LastModifiedTime": package.modified}
        return described

    def list_(self, request: Json) -> Json:
        scope, found = current()
        groups = list(found.package_groups.values())
        if "ModelPackageGroupName" in request:
            groups = [found.package_group(scope, _last(request["ModelPackageGroupName"]))]
        elif request.get("ModelPackageType", "Unversioned") == "Unversioned":
            groups = []
        wanted = request.get("ModelApprovalStatus")
        every = [
            package
            for group in groups
            for package in group.packages.values()
            if wanted in (None, package.approval)
        ]
        return page(request, "ModelPackageSummaryList", every, _summary)

    def update(self, request: Json) -> Json:
        scope, found = current()
        package = _package(scope, found, request["ModelPackageArn"])
        changed = [name for name in request if name not in ("ModelPackageArn", "ClientToken")]
        package.said |= {name: request[name] for name in REPLACED if name in request}
        package.approval = package.said.pop("ModelApprovalStatus", package.approval)
        if "CustomerMetadataProperties" in request or "CustomerMetadataPropertiesToRemove" in request:
            kept = package.said.get("CustomerMetadataProperties", {}) | request.get(
                "CustomerMetadataProperties", {}
            )
            for name in request.get("CustomerMetadataPropertiesToRemove", []):
                kept.pop(name, None)
            package.said["CustomerMetadataProperties"] = kept
        if "AdditionalInferenceSpecificationsToAdd" in request:
            known = package.said.setdefault("AdditionalInferenceSpecifications", [])
            known += request["AdditionalInferenceSpecificationsToAdd"]
        package.modified, package.modified_by = now(), _who()
        _tell(scope, package, changed)
        return {"ModelPackageArn": package.arn}

    def delete(self, request: Json) -> Json:
        scope, found = current()
        package = _package(scope, found, request["ModelPackageName"])
        del found.package_group(scope, package.group).packages[package.version]
        found.tags.pop(package.arn, None)
        return {}


def _package(scope: Scope, found: Resources, name: str) -> Package:
    """A package of a group, by its ARN or as `<group>/<version>`."""
    versioned = name.rpartition(":model-package/")[2]
    group_name, _, version = versioned.partition("/")
    group = found.package_groups.get(group_name.lower())
    package = group.packages.get(int(version)) if group and version.isdecimal() else None
    if package is None:
        arn = name if name.startswith("arn:") else scope.arn("model-package", name)
        raise validation_error(f"ModelPackage {arn} does not exist.")
    return package


def _last(name_or_arn: str) -> str:
    return name_or_arn.rpartition("/")[2]


def _summary_of_group(group: PackageGroup) -> Json:
    described = {"ModelPackageGroupDescription": group.description} if group.description else {}
    return {
        "ModelPackageGroupName": group.name,
        "ModelPackageGroupArn": group.arn,
        "CreationTime": group.created,
        "ModelPackageGroupStatus": "Completed",
        **described,
    }


def _summary(package: Package) -> Json:
    shared = ("ModelPackageDescription", "ModelLifeCycle", "ModelPackageRegistrationType")
    return {
        "ModelPackageGroupName": package.group,
        "ModelPackageVersion": package.version,
        "ModelPackageArn": package.arn,
        "CreationTime": package.created,
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": package.approval,
        **{name: package.said[name] for name in shared if name in package.said},
    }


def _who() -> Json:
    """The UserContext of the caller."""
    arn = iam_evaluator.caller_arn()
    return {"IamIdentity": {"Arn": arn, "PrincipalId": arn.rpartition("/")[2]}}


def _tell(scope: Scope, package: Package, updated: list[str]) -> None:
    told = ("InferenceSpecification", "MetadataProperties", "ModelLifeCycle", "CustomerMetadataProperties")
    detail = {
        "ModelPackageGroupName": package.group,
        "ModelPackageName": f"{package.group}/{package.version}",
        "ModelPackageVersion": package.version,
        "ModelPackageArn": package.arn,
        "CreationTime": int(package.created.timestamp() * 1000),
        "ModelPackageStatus": "Completed",
        "ModelApprovalStatus": package.approval,
        **{name: package.said[name] for name in told if name in package.said},
    }
    if updated:
        detail |= {"UpdatedModelPackageFields": updated}
    event = {
        "EventId": new_uuid(),
        "Source": "aws.sagemaker",
        "DetailType": EVENT,
        "Detail": json.dumps(detail),
        "EventBusName": "default",
        "Time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "Resources": [package.arn],
        "Account": scope.account,
        "Region": scope.region,
    }
    spawn_background(eventbridge._dispatch_event, event)
