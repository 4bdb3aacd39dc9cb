"""`coord topic` against a real cluster: what goes in comes out, and exit codes say what was wrong."""

import json
import subprocess

from coord_core.cli.exits import Exit
from tests.cli.running import Dev, coord


def topic(cluster: Dev, *words: str, output: str = "table") -> "subprocess.CompletedProcess[str]":
    return coord("--url", cluster.url, "-o", output, "topic", *words)


def test_what_is_published_is_read(cluster: Dev) -> None:
    """Bytes as they are, or with all there is to know."""
    found = topic(cluster, "publish", "/cli", "one", "two", "--key", "k", "--header", "by=test")
    assert (found.returncode, found.stdout.split()) == (0, ["0", "1"])
    assert topic(cluster, "read", "/cli", output="plain").stdout == "one\ntwo\n"
    document = json.loads(topic(cluster, "read", "cli", "--from", "1", output="jsonl").stdout)
    assert (document["offset"], document["payload"], document["key"], document["headers"]) == (1, "two", "k", {"by": "test"})
    assert topic(cluster, "read", "/cli", "--from", "1h", "--limit", "1", output="plain").stdout == "one\n"
    assert topic(cluster, "read", "/cli", "--from", "latest", output="plain").stdout == ""
    assert "two" in topic(cluster, "read", "/cli").stdout


def test_topics_are_made_changed_listed_described_and_deleted(cluster: Dev) -> None:
    """And one that is there is not changed by accident."""
    assert topic(cluster, "create", "/kept", "--max-bytes", "10MiB", "--max-age", "0").returncode == 0
    assert topic(cluster, "create", "/kept").returncode == Exit.CONFLICT
    assert topic(cluster, "create", "/kept", "--max-records", "3", "--update").returncode == 0
    for number in range(5):
        topic(cluster, "publish", "/kept", str(number))
    described = json.loads(topic(cluster, "describe", "/kept", output="json").stdout)
    assert (described["messages"], described["earliest"], described["max_records"]) == (3, 2, 3)
    assert "max_records\t3" in topic(cluster, "describe", "/kept").stdout
    assert topic(cluster, "ls", "/kep", output="plain").stdout.split()[:4] == ["/kept", "3", "2", "5"]
    assert topic(cluster, "delete", "/kept").returncode == 0
    assert topic(cluster, "describe", "/kept").returncode == Exit.NOT_FOUND
    assert topic(cluster, "read", "/kept").returncode == Exit.NOT_FOUND


def test_a_group_reads_on_and_can_be_set_back(cluster: Dev) -> None:
    """`lag` says how much is left for it."""
    topic(cluster, "publish", "/work", "a", "b", "c")
    read = ("read", "/work", "--follow", "--group", "shell", "--limit", "2")
    assert topic(cluster, *read, output="plain").stdout == "a\nb\n"
    assert topic(cluster, "lag", "/work", output="plain").stdout.split() == ["shell", "2", "1"]
    assert topic(cluster, "seek", "/work", "shell", "1").returncode == 0
    assert topic(cluster, *read, output="plain").stdout == "b\nc\n"
    assert "shell" in topic(cluster, "lag", "/work").stdout


def test_what_is_no_place_in_a_topic_is_a_usage_error(cluster: Dev) -> None:
    """The line says what is one."""
    found = topic(cluster, "read", "/cli", "--from", "whenever")
    assert found.returncode == Exit.USAGE
    assert "how long ago" in found.stderr
    assert topic(cluster, "create", "/t", "--max-bytes", "lots").returncode == Exit.USAGE
    assert topic(cluster, "read", "/cli", "--group", "g").returncode == Exit.USAGE
