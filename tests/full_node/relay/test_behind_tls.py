"""A relay behind a proxy with TLS, as strangers reach it: protected, under its public name, and refused without a fit
certificate.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dllm_protocol.relay import key_address, relay_name
from dllm_protocol.signing import SeedSigner
from light_node.relay.connection import dial
from light_node.relay.errors import RelayRefused, RelayUnreachable
from light_node.relay.listening import ByKey
from light_node.relay.urls import relay_url
from tests.full_node.relay.rig import HOST, Running, running_relay
from tests.full_node.relay.test_server import echo

KEY = SeedSigner(b"\x61" * 32)
DAY = datetime.timedelta(days=1)


def certificate(folder: Path, name: str) -> Path:
    """A certificate of our own for a name, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def tls_before(running: Running, file: Path) -> AsyncIterator[int]:
    """A proxy that takes TLS off; its port."""
    behind = int(running.url.name.rpartition(":")[2])

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay_reader, relay_writer = await asyncio.open_connection(HOST, behind)
        await asyncio.gather(_pump(reader, relay_writer), _pump(relay_reader, writer))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    server = await asyncio.start_server(handle, HOST, 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def test_a_key_listens_and_is_dialled_under_the_public_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with running_relay() as running, tls_before(running, file) as port:
        url = relay_url(f"wss://localhost:{port}")
        outside = replace(running, url=url)
        with pytest.raises(RelayRefused, match="does not prove"):
            async with outside.listening(echo, ByKey(KEY)):
                pass
        running.relay.names = frozenset({relay_name("localhost", port)})
        async with outside.listening(echo, ByKey(KEY)):
            stream = await dial(url, key_address(KEY.public_key))
            await stream.send(bytes(300_000))
            assert await stream.read() == bytes(300_000)
            await stream.close()


async def test_a_certificate_that_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, other = certificate(tmp_path, "localhost"), certificate(tmp_path, "other.example")
    async with running_relay() as running, tls_before(running, file) as port:
        with pytest.raises(RelayUnreachable, match="certificate verify failed"):
            await dial(relay_url(f"wss://localhost:{port}"), bytes(32))
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with pytest.raises(RelayUnreachable, match="certificate verify failed"):
            await dial(relay_url(f"wss://127.0.0.1:{port}"), bytes(32))
        monkeypatch.setenv("SSL_CERT_FILE", str(other))
        with pytest.raises(RelayUnreachable, match="certificate verify failed"):
            await dial(relay_url(f"wss://localhost:{port}"), bytes(32))
        assert running.relay.connections == 0
