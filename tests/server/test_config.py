"""A wrong configuration is refused at once and wholly, in words that say what to change."""

from pathlib import Path

import pytest

from coord_core.config import (
    OPTIONS,
    LimitsConfig,
    RaftTimes,
    ServerConfig,
    TlsConfig,
    load_config,
    parse_address,
    parse_duration_ms,
)
from coord_core.errors import InvalidConfig

GOOD = {"name": "n1", "data_dir": "/var/lib/coord"}


def faults_of(**flags: object) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        load_config(flags={**GOOD, **flags})
    faults: list[str] = caught.value.details["faults"]
    assert all(fault in caught.value.message for fault in faults)
    return faults


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_two_lines_are_a_whole_configuration() -> None:
    """Everything but the name and the place of the data has a default that works on one machine."""
    config = load_config(flags=GOOD)
    assert config == ServerConfig(name="n1", data_dir=Path("/var/lib/coord"))
    assert config.shares_port
    config.validate()


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """The nearer to the person who starts it, the stronger."""
    text = """
        name = "n1"
        data_dir = "/data"
        listen = "127.0.0.1:1"
        [raft]
        election_timeout = "1s"
        tick = "10ms"
        heartbeat = "100ms"
    """
    config = load_config(
        write(tmp_path / "coord.toml", text),
        environ={"COORD_RAFT__ELECTION_TIMEOUT": "500ms", "COORD_LISTEN": "127.0.0.1:2", "HOME": "/root"},
        flags={"listen": "127.0.0.1:3", "name": None},
    )
    assert config.listen == "127.0.0.1:3"
    assert config.raft == RaftTimes(tick_ms=10, election_timeout_ms=500, heartbeat_ms=100)
    assert config.name == "n1"


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    """Nobody wants to find five mistakes in five restarts: bad values, unknown keys and misfits come together."""
    file = write(
        tmp_path / "coord.toml", 'name = "n 1"\nlisten = "nowhere"\n[raft]\nelection_timeout = 300\nelection_timout = "1s"\n'
    )
    with pytest.raises(InvalidConfig) as caught:
        load_config(file, environ={"COORD_LIMITS__CLIENT_CONNECTIONS_MAX": "many"}, flags={"founders": "n2,n2"})
    faults = "\n".join(caught.value.details["faults"])
    for expected in (
        "name 'n 1' must be",
        "data_dir is missing",
        "listen 'nowhere': expected host:port",
        "raft.election_timeout: expected a duration with its unit, such as 300ms or 15s, not 300",
        "raft.election_timout: there is no such key; did you mean raft.election_timeout?",
        "COORD_LIMITS__CLIENT_CONNECTIONS_MAX: expected a whole number, not 'many'",
        "founders is only for the node with init",
        "founder 'n2' is named twice",
    ):
        assert expected in faults


def test_an_unknown_variable_of_the_environment_names_the_nearest_key() -> None:
    """A misspelt variable that is silently ignored is found during the outage it was meant to prevent."""
    with pytest.raises(InvalidConfig, match=r"COORD_RAFT__ELECTION: there is no such key; did you mean raft\.election_timeout\?"):
        load_config(environ={"COORD_RAFT__ELECTION": "1s"}, flags=GOOD)
    with pytest.raises(InvalidConfig, match=r"COORD_HEARTBEAT: there is no such key; did you mean raft\.heartbeat\?"):
        load_config(environ={"COORD_HEARTBEAT": "1s"}, flags=GOOD)


def test_variables_of_others_with_our_prefix_are_left_alone() -> None:
    """The client's own, and those that Kubernetes makes of a service named coord, must not keep a server from starting."""
    environ = {
        "COORD_URL": "coord://h",
        "COORD_LOCK_NAME": "/x",
        "COORD_SERVICE_HOST": "10.0.0.1",
        "COORD_SERVICE_PORT": "7400",
        "COORD_SERVICE_PORT_CLIENT": "7400",
        "COORD_PORT": "tcp://10.0.0.1:7400",
        "COORD_PORT_7400_TCP_ADDR": "10.0.0.1",
        "COORD_0_PORT_7400_TCP": "tcp://10.0.0.1:7400",
    }
    assert load_config(environ=environ, flags=GOOD).name == "n1"


def test_a_token_in_the_environment_is_refused_and_not_repeated() -> None:
    """Environments end up in process lists and crash reports; so would a message that quotes the value."""
    with pytest.raises(InvalidConfig, match="COORD_TOKEN_FILE") as caught:
        load_config(environ={"COORD_TOKEN": "s3cret"}, flags=GOOD)
    assert "s3cret" not in caught.value.message
    assert "s3cret" not in repr(ServerConfig(token="s3cret"))


def test_the_token_is_read_from_its_file_and_never_empty(tmp_path: Path) -> None:
    """An empty file would mean a cluster open to all."""
    config = load_config(flags={**GOOD, "token_file": write(tmp_path / "token", " s3cret\n")})
    assert config.secret() == "s3cret"
    write(tmp_path / "token", "\n")
    with pytest.raises(InvalidConfig, match="is empty"):
        config.secret()
    (tmp_path / "token").unlink()
    with pytest.raises(InvalidConfig, match="cannot be read"):
        config.secret()


@pytest.mark.parametrize("listen", ["0.0.0.0:7400", "10.0.0.1:7400", "node1.example:7400", "[::]:7400"])
def test_listening_beyond_this_machine_needs_tls_and_a_token(listen: str) -> None:
    """The message says all three ways out."""
    (fault,) = faults_of(listen=listen, advertise="node1.example:7400")
    assert f"listen {listen!r} can be reached from other machines without tls.cert and tls.key and token_file" in fault
    assert "listen on 127.0.0.1" in fault
    assert "set insecure" in fault
    tls = {"tls.cert": "c.pem", "tls.key": "k.pem"}
    (fault,) = faults_of(listen=listen, advertise="node1.example:7400", **tls)
    assert "without token_file:" in fault
    good = {**GOOD, "listen": listen, "advertise": "node1.example:7400"}
    assert load_config(flags={**good, **tls, "token_file": "t"}).tls == TlsConfig(Path("c.pem"), Path("k.pem"))
    assert load_config(flags={**good, "insecure": "true"}).insecure


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.3.2.1:7400", "localhost:7400", "[::1]:7400"])
def test_listening_on_this_machine_alone_needs_nothing(listen: str) -> None:
    """So that the first try works."""
    assert load_config(flags={**GOOD, "listen": listen}).listen == listen


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"init": True, "join": "h:1"}, "init and join exclude each other"),
        ({"init": True, "join": "h:1"}, "comes back with an empty directory and --join ADDRESS --replace, without --init"),
        ({"init": True, "replace": True}, "replace and init exclude each other: a founder that lost its disk comes back with"),
        ({"init": True, "founders": "n2,n3"}, "name 'n1' is not among the founders (n2, n3)"),
        ({"join": "h:0"}, "join 'h:0': expected a host and port that others can dial"),
        ({"advertise": "0.0.0.0:1"}, "advertise '0.0.0.0:1': expected a host and port"),
        ({"listen": "0.0.0.0:1", "insecure": True}, "advertise is missing"),
        ({"tls.cert": "c"}, "tls.cert and tls.key go together"),
        ({"tls.ca": "c"}, "tls.ca needs tls.cert and tls.key"),
        ({"token": "a", "token_file": "b"}, "token and token_file exclude each other"),
        ({"raft.heartbeat": "75ms"}, "raft.heartbeat (75ms) is no multiple of raft.tick (50ms)"),
        ({"raft.heartbeat": "150ms"}, "raft.election_timeout (300ms) is below 3 x raft.heartbeat (150ms)"),
        ({"raft.tick": "0ms"}, "raft.tick must be more than 0"),
        ({"limits.requests_in_flight_max": 10}, "limits.requests_in_flight_max must be at least 4096"),
        ({"limits.peer_frame_bytes_max": 600_000}, "limits.peer_frame_bytes_max is below"),
        ({"snapshots.entries": 0}, "snapshots.entries must be more than 0"),
        ({"storage.reserve_bytes": 1_000}, "storage.reserve_bytes must be at least 1048576"),
        ({"storage.low_bytes": 10_000_000}, "storage.low_bytes (10000000) is below 2 x storage.reserve_bytes (8388608)"),
        ({"storage.quota_bytes": 100_000_000}, "storage.quota_bytes must be 0 (none) or at least 2 x"),
        ({"insecure": "perhaps"}, "--insecure: expected true or false"),
    ],
)
def test_what_does_not_fit_together_is_named(flags: dict[str, object], expected: str) -> None:
    """One line each: the key, what is wrong, what would be right."""
    assert any(expected in fault for fault in faults_of(**flags)), faults_of(**flags)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """Missing or not TOML: said with its path."""
    with pytest.raises(InvalidConfig, match=r"absent\.toml cannot be read"):
        load_config(tmp_path / "absent.toml", flags=GOOD)
    with pytest.raises(InvalidConfig, match=r"coord\.toml cannot be read"):
        load_config(write(tmp_path / "coord.toml", "name = "), flags=GOOD)


def test_durations_need_a_unit() -> None:
    """300 could be seconds to one and milliseconds to another."""
    assert [parse_duration_ms(text) for text in ("300ms", "15s", "1.5m", "1h")] == [300, 15_000, 90_000, 3_600_000]
    for bad in ("300", 300, "", "s", "-1s", "1d"):
        with pytest.raises(ValueError, match="with its unit"):
            parse_duration_ms(bad)


def test_addresses_may_be_ipv6() -> None:
    """In brackets, since the port follows a colon."""
    assert parse_address("[::1]:7400") == ("::1", 7400)
    assert parse_address("host:1") == ("host", 1)
    for bad in ("host", "host:", "host:x", "host:70000", "host:²"):
        with pytest.raises(ValueError, match="host:port"):
            parse_address(bad)


def test_every_option_can_be_set_by_its_key() -> None:
    """The table of keys comes from the fields: a field without a key could never be set."""
    assert {"name", "raft.tick", "limits.handshake_timeout", "tls.ca"} <= set(OPTIONS)
    values = {"limits.handshake_timeout": "1s", "founders": "n1, n2", "init": "yes"}
    config = load_config(flags={**GOOD, **values})
    assert config.limits == LimitsConfig(handshake_timeout_ms=1000)
    assert config.founders == ("n1", "n2")
    assert config.init
