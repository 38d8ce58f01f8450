"""Decides cases by Principal Mapper's local simulator.

Standard input: {"roles": {NAME: {"arn", "policies": [DOCUMENT]}}, "cases": [{"role" or "service",
"action", "resource", "context", "resourcePolicy"?}]}. Standard output: a list of booleans.
"""

import collections
import collections.abc
import json
import sys

# The simulator was written for Python 3.9, which still had these names here.
for name in ("Mapping", "MutableMapping"):
    setattr(collections, name, getattr(collections.abc, name))

from principalmapper.common import Node, Policy  # noqa: E402
from principalmapper.querying import local_policy_simulation as simulation  # noqa: E402
from principalmapper.querying import query_interface  # noqa: E402


def node(role):
    policies = [Policy(role["arn"], f"p{index}", document) for index, document in enumerate(role["policies"])]
    return Node(role["arn"], "AROA", policies, None, {}, None, 0, False, False, None, False, None)


def allowed(roles, case):
    policy = case.get("resourcePolicy")
    action, resource, context = case["action"], case["resource"], case["context"]
    if "service" in case:
        result = simulation.resource_policy_authorization(case["service"], OWNER, policy, action, resource, context)
        return result is simulation.ResourcePolicyEvalResult.SERVICE_MATCH
    role = roles[case["role"]]
    if policy is not None:
        context = {"aws:PrincipalArn": role.arn, **context}
        return query_interface.local_check_authorization_full(role, action, resource, context, policy, OWNER)
    return query_interface.local_check_authorization(role, action, resource, context)


OWNER = "123456789012"
asked = json.load(sys.stdin)
nodes = {name: node(role) for name, role in asked["roles"].items()}
json.dump([allowed(nodes, case) for case in asked["cases"]], sys.stdout)
