"""A cluster on AWS: on-demand machines where there are no spot ones, and the head's right to start workers."""

import importlib
import json
import shlex
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from moto import mock_aws
from ray.autoscaler.node_launch_exception import NodeLaunchException

from hdam.platform.clusters import check


@pytest.fixture
def aws(monkeypatch):
    """Ray's provider for AWS with our addition, on an EC2 that answers from this process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    spot_first = importlib.import_module("hdam.platform.clusters.spot_first")
    mock = mock_aws()
    mock.start(reset=False)  # the store of other tests is in this process too
    yield spot_first.SpotFirstProvider({"region": "us-west-2", "cache_stopped_nodes": False}, "hdam")
    mock.stop(remove_data=False)


def zones():
    """A subnet in each of two zones."""
    first, second, *_ = boto3.resource("ec2", "us-west-2").subnets.all()
    return [first.id, second.id]


def start(provider):
    """How a machine was started: `spot`, or None for one on demand."""
    market = {"InstanceMarketOptions": {"MarketType": "spot"}}
    config = {"InstanceType": "g5.2xlarge", "ImageId": "ami-12c6146b", "SubnetIds": zones(), **market}
    [node] = provider.create_node(config, {"ray-node-kind": "worker"}, 1).values()
    return node.instance_lifecycle


def refuse(provider, monkeypatch, *, spot, on_demand=(None, None)):
    """A refusal, by zone, cannot be caused; everything else is Ray's and boto3's own."""
    create, first = provider.ec2_fail_fast.create_instances, zones()[0]

    def create_or_refuse(**settings):
        codes = spot if "InstanceMarketOptions" in settings else on_demand
        if code := codes[settings["SubnetId"] != first]:
            raise ClientError({"Error": {"Code": code, "Message": "none left"}}, "RunInstances")
        return create(**settings)

    monkeypatch.setattr(provider.ec2_fail_fast, "create_instances", create_or_refuse)


def test_machines_are_spot_ones_where_there_are_any(aws):
    assert start(aws) == "spot"


@pytest.mark.parametrize("first", ["InsufficientInstanceCapacity", "Unsupported"])
def test_where_there_is_no_spot_machine_one_comes_on_demand(aws, monkeypatch, first):
    lacks_the_type = first if first == "Unsupported" else None
    refuse(aws, monkeypatch, spot=(first, "InsufficientInstanceCapacity"), on_demand=(lacks_the_type, None))
    assert start(aws) is None


def test_any_other_refusal_is_told_to_ray(aws, monkeypatch):
    refuse(aws, monkeypatch, spot=("UnauthorizedOperation",) * 2)
    with pytest.raises(NodeLaunchException, match="none left"):
        start(aws)


def test_the_heads_role_is_taught_to_pass_itself_on(aws):
    """The command of the header, taken apart by a shell's rules and given to an IAM that reads policies."""
    text = Path(check.__file__).with_name("cluster.yaml").read_text(encoding="utf-8")
    [command] = [line for line in text.splitlines() if "aws iam put-role-policy" in line]
    words = shlex.split(command.lstrip("# "))
    given = dict(zip(words[3::2], words[4::2], strict=True))
    role = given["--role-name"]
    iam = boto3.client("iam")
    iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
    iam.put_role_policy(RoleName=role, PolicyName=given["--policy-name"], PolicyDocument=given["--policy-document"])
    [statement] = json.loads(given["--policy-document"])["Statement"]
    assert statement["Action"] == "iam:PassRole" and statement["Resource"].endswith(f":role/{role}")
    types = yaml.safe_load(text)["available_node_types"]
    assert {each["node_config"]["IamInstanceProfile"]["Name"] for name, each in types.items() if name != "head"} == {
        role
    }
