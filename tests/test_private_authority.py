"""A storage and a model whose certificates are of an authority of one's own."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flows.servers import serve
from tasks.clients import bounds, frames, lane, storage, table
from tasks.clients.batches import BatchApi
from tasks.clients.lane import open_lane
from tasks.core.errors import StorageError
from tasks.core.requests import Recipe
from tests.model_server import completion

KEY = ec.generate_private_key(ec.SECP256R1())
READERS: dict[str, Callable[[str], object]] = {
    "s3fs": storage.list_objects,
    "polars": lambda uri: frames.sink_frame(pl.LazyFrame({"a": [1]}), f"{uri}/a.parquet"),
    "deltalake": lambda uri: table.open_table(f"{uri}/table"),
}


def certify(name: str, *, authority: bool) -> x509.Certificate:
    """Return a certificate that the authority gives, to itself or to a server on 127.0.0.1."""

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    draft = x509.CertificateBuilder(named("authority"), named(name), KEY.public_key(), x509.random_serial_number())
    draft = draft.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
    draft = draft.add_extension(x509.BasicConstraints(authority, None), critical=True)
    return draft.add_extension(address, critical=False).sign(KEY, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the certificates of the authority and the server."""
    folder = tmp_path_factory.mktemp("authority")
    for name in ("authority", "server"):
        pem = certify(name, authority=name == "authority").public_bytes(serialization.Encoding.PEM)
        (folder / f"{name}.pem").write_bytes(pem)
    coding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(KEY.private_bytes(*coding))
    return folder


@pytest.fixture(scope="module")
def address(authority: Path) -> Iterator[str]:
    """Run an S3 server with that certificate, and a bucket `private`."""
    files = ("--ssl-cert", str(authority / "server.pem"), "--ssl-key", str(authority / "key.pem"))
    with serve("moto.server", "-H", "127.0.0.1", "-p", "{port}", *files) as server:
        server.wait()
        yield server.url.replace("http:", "https:")


@pytest.mark.runs
@pytest.mark.parametrize("reader", READERS)
def test_one_setting_has_every_library_trust_the_storage(
    reader: str, authority: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match=r"does not trust the certificate .* Set SSL_CERT_FILE"):
        READERS[reader]("s3://private")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "authority.pem"))
    storage.filesystem().call_s3("create_bucket", Bucket="private")
    READERS[reader]("s3://private")


async def call(name: str, api_base: str) -> object:
    """Make one call in a lane, or one of the batch API; return what it says."""
    recipe = Recipe(model_name="openai/gpt-4o-mini")
    if name == "batch":
        return (await asyncio.to_thread(BatchApi(recipe, api_base).retrieve, "batch_1")).status
    opened = open_lane(recipe, api_base)
    try:
        return (await opened.call("a prompt")).text
    finally:
        await opened.close()


@pytest.mark.parametrize("setting", ["SSL_CERT_FILE", "SSL_VERIFY"])
@pytest.mark.parametrize("name", ["fast", "stock", "batch"])
def test_both_lanes_and_the_batch_api_trust_the_model(
    name: str, setting: str, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second setting is litellm's own."""
    monkeypatch.setenv(lane.SETTING, name.replace("batch", "fast"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv(setting, str(authority / "authority.pem"))
    bounds._open_client.cache_clear()
    certified = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certified.load_cert_chain(authority / "server.pem", authority / "key.pem")

    async def answer(request: web.Request) -> web.Response:
        batch = {
            "id": "batch_1",
            "object": "batch",
            "status": "completed",
            "created_at": 1,
            "endpoint": "/v1/chat/completions",
        }
        batch |= {"completion_window": "24h", "input_file_id": "file-1"}
        return web.json_response(batch if request.method == "GET" else completion("completed"))

    async def ask() -> object:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certified).start()
        try:
            return await call(name, f"https://127.0.0.1:{runner.addresses[0][1]}/v1")
        finally:
            await runner.cleanup()

    assert asyncio.run(ask()) == "completed"
