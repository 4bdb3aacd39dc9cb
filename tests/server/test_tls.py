"""TLS on both kinds of connections: clients check the node, nodes check each other; without a certificate one is no node."""

import asyncio
import datetime
import ipaddress
import logging
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coord_core.config import ServerConfig, TlsConfig, file_faults
from coord_core.errors import InvalidConfig
from coord_core.protocol.messages import MAGIC, PeerIdentity, Refused, Welcome
from coord_core.server.server import Server
from coord_core.wire import codec
from coord_core.wire.frames import encode_frame
from tests.server.support import Nodes, RawClient, hello, until

TLS_ALERT = b"\x15"


class Authority:
    """Issues certificates for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {folder.name}")])
        self.certificate = self._sign(self._name, self._key, is_authority=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, address: str = "127.0.0.1") -> TlsConfig:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, is_authority=False, address=address)
        cert_file, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return TlsConfig(cert_file, key_file, self.file)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool, address: str = "127.0.0.1"
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


async def tls_cluster(nodes: Nodes, authority: Authority) -> list[Server]:
    first = await nodes.start("n1", init=True, founders=("n1", "n2"), tls=authority.issue("n1"), token="s3cret")
    second = await nodes.start("n2", join=(first.peer_address,), tls=authority.issue("n2"), token="s3cret")
    await nodes.leader_of_formed()
    return [first, second]


async def test_nodes_and_clients_work_over_tls(nodes: Nodes, authority: Authority) -> None:
    """A client needs the authority's certificate and none of its own."""
    await tls_cluster(nodes, authority)
    leader = await nodes.leader()
    context = ssl.create_default_context(cafile=str(authority.file))
    client = await RawClient.dial(leader.client_address, ssl=context)
    assert isinstance(await client.greet(hello(token="s3cret")), Welcome)
    session = await client.open_session()
    await client.lock(session, 1, "/lock")
    await client.close()


async def test_a_client_without_tls_gets_nowhere(nodes: Nodes, authority: Authority) -> None:
    """Neither an answer nor a trace of harm."""
    first, _ = await tls_cluster(nodes, authority)
    client = await RawClient.dial(first.client_address)
    client.writer.write(MAGIC + encode_frame(codec.encode(hello(token="s3cret"))))
    answer = await client.raw()
    assert answer[:1] in (b"", TLS_ALERT)
    await nodes.leader()


async def test_who_shows_no_certificate_is_no_node(nodes: Nodes, authority: Authority) -> None:
    """On a port that clients share too, the protocol's own handshake insists."""
    first, _ = await tls_cluster(nodes, authority)
    context = ssl.create_default_context(cafile=str(authority.file))
    for role in ("peer", "join"):
        client = await RawClient.dial(first.peer_address, ssl=context)
        heard = await client.greet(hello(role=role, token="s3cret", peer=PeerIdentity("n2", "x", "h:1", "h:2", 2)))
        assert isinstance(heard, Refused)
        assert (heard.code, "must show a certificate" in heard.message) == ("AuthenticationFailed", True)


async def test_a_certificate_of_another_authority_is_refused(nodes: Nodes, authority: Authority, tmp_path: Path) -> None:
    """In TLS already."""
    first, _ = await tls_cluster(nodes, authority)
    foreign = Authority(tmp_path / "theirs").issue("n2")
    context = ssl.create_default_context(cafile=str(authority.file))
    assert foreign.cert is not None
    context.load_cert_chain(foreign.cert, foreign.key)
    client = await RawClient.dial(first.peer_address, ssl=context)
    with pytest.raises((AssertionError, ssl.SSLError)):
        assert isinstance(await client.greet(hello(role="join", token="s3cret")), Welcome)


async def test_a_node_does_not_show_its_token_to_a_stranger(nodes: Nodes, authority: Authority, tmp_path: Path) -> None:
    """It checks who answers before it says Hello: here the other side has a certificate of another authority."""
    first, _ = await tls_cluster(nodes, authority)
    foreign = Authority(tmp_path / "theirs")
    late = await nodes.start("n3", join=(first.peer_address,), tls=foreign.issue("n3"), token="s3cret")
    assert late.missing_founders() == []
    with pytest.raises(TimeoutError):
        await _within(0.5, late)
    await nodes.stop("n3")


async def test_who_cannot_dial_a_node_for_its_certificate_says_so_loudly(
    nodes: Nodes, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate that names another address: the node itself dials all others, and sees nothing of it."""
    caplog.set_level(logging.INFO, "coord.server")
    await tls_cluster(nodes, authority)
    leader = await nodes.leader()
    await nodes.start("n3", join=(leader.peer_address,), tls=authority.issue("n3", "10.0.0.3"), token="s3cret")
    wrong = nodes.running["n3"].peer_address
    await until(lambda: "n3" in leader.status().unreached, "the leader's trouble with it")
    assert f"the certificate at {wrong} does not hold: IP address mismatch" in leader.status().unreached["n3"]
    said = [record for record in caplog.records if f"no connection to node n3 at {wrong}" in record.getMessage()]
    assert {record.levelno for record in said} == {logging.WARNING}
    assert all("must name the host or address by which that node is dialled" in record.getMessage() for record in said)


async def test_a_node_without_tls_that_asks_one_with_it_is_told_what_it_may_lack(
    nodes: Nodes, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """The other side hangs up without a word: it has not understood any."""
    first, _ = await tls_cluster(nodes, authority)
    await nodes.start("n3", join=(first.peer_address,), token="s3cret")
    await until(lambda: "perhaps it wants TLS (tls.cert, tls.key and tls.ca)" in caplog.text, "the hint")


async def test_a_node_with_tls_that_asks_one_without_is_told_so(
    nodes: Nodes, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Loudly, for waiting does not help."""
    (first,) = await nodes.cluster("n1")
    await nodes.start("n3", join=(first.peer_address,), tls=authority.issue("n3"), token="s3cret")
    await until(lambda: "cannot be reached by TLS" in caplog.text, "the hint")
    assert "perhaps it has none" in caplog.text


async def _within(seconds: float, server: Server) -> None:
    async with asyncio.timeout(seconds):
        await server.wait_formed()


def test_a_key_that_belongs_to_another_certificate_is_a_fault_of_the_configuration(authority: Authority, tmp_path: Path) -> None:
    """Files that were mixed up are found by `coord config check`; those that fit have no fault."""
    one, other = authority.issue("n1"), authority.issue("n2")
    config = ServerConfig(name="n1", data_dir=tmp_path, token="s3cret")
    assert file_faults(replace(config, tls=one)) == []
    (fault,) = file_faults(replace(config, tls=replace(one, key=other.key)))
    assert fault == f"tls.cert {one.cert} and tls.key {other.key}: the key does not belong to the certificate"


async def test_files_that_are_no_certificates_are_named(nodes: Nodes, tmp_path: Path) -> None:
    """At start, not at the first connection."""
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    with pytest.raises(InvalidConfig, match=r"bad\.pem.*cannot be used"):
        await nodes.start("n1", init=True, tls=TlsConfig(bad, bad))
