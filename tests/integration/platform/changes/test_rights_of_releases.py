"""No role that takes versions in, tries, stores or releases them has a right too many, or one too few.

What was used is known of everything that the tests of this folder did before, which sort before this file:
it is true of the whole, `make test-changes`, and of no part.
"""

from fnmatch import fnmatch

import pytest

from tests.integration.platform import rights
from tests.integration.platform.conftest import Platform

pytestmark = pytest.mark.changes

ONLY_ON_AWS = {
    "kms:Decrypt (DecryptHistory) of *": "Nothing asks here for the key of a table.",
    "kms:* (EncryptVolumes) of *": "Instances have no volumes here.",
    "lambda:*ProvisionedConcurrencyConfig (ChangeVersions) of *": "There is none to suspend here.",
    "* (-) of inference-local-releases-ExecutionRole*": "The machine's log and traces are remembered.",
}
"""Rights that no path uses here -> why only AWS can show that they are needed."""


def test_no_right_of_publishing_or_releasing_is_unused_and_none_was_lacking(platform: Platform) -> None:
    roles = rights.roles(platform)
    validators = [role for role in roles if "Validator" in role]
    others = [role for role in roles if role.startswith("inference-local-releases-")]
    assert len(validators) == 4
    lacking = {role: found for role in (*validators, *others) if (found := rights.lacking(platform, role))}
    assert lacking == {}

    unused = [right for role in others for right in rights.unused(platform, role)]
    # Validators are alike, and not each is asked everything.
    of_each = [
        {(right.sid, right.action): right for right in rights.unused(platform, role)} for role in validators
    ]
    unused += [right for key, right in of_each[0].items() if all(key in other for other in of_each)]
    found = {str(right) for right in unused}
    declared = {right for right in found for pattern in ONLY_ON_AWS if fnmatch(right, pattern)}
    assert found - declared == set()
    stale = [pattern for pattern in ONLY_ON_AWS if not any(fnmatch(right, pattern) for right in found)]
    assert stale == []
