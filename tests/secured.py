"""A real Kafka that demands TLS and a login, with certificates and tokens of the test."""

import base64
import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import confluent_kafka.admin
import trustme
from cryptography.hazmat.primitives import serialization

from ecosystem.embedded.kafka import Cluster

USER, PASSWORD = "orders", "s3cret-password"
CLERK = "clerk"
"""A user who may have no transactions, once `forbid_transactions` has run."""
CONNECTION_STRING = (
    "Endpoint=sb://localhost/;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=c2VjcmV0LWtleQ=="
)
_MODULES = "org.apache.kafka.common.security"


class Secured:
    """A broker with listeners for TLS with our certificate (`MTLS`) and for SASL over TLS (`LOGIN`).

    Arguments:
        cluster: it, started, with a listener for tests that has neither.
        folder: of the certificates.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.cafile = folder / "ca.pem"

    def servers(self, listener: str) -> str:
        return f"localhost:{self.cluster.listener_port(listener, 1)}"

    def login(self, mechanism: str, **changes: Any) -> dict[str, Any]:
        """Settings of a client that logs in."""
        settings = {
            "kafka_bootstrap_servers": self.servers("LOGIN"),
            "kafka_security_protocol": "SASL_SSL",
            "kafka_ssl_cafile": self.cafile,
            "kafka_sasl_mechanism": mechanism,
        }
        if mechanism != "OAUTHBEARER":
            settings |= {"kafka_sasl_username": USER, "kafka_sasl_password": PASSWORD}
        return settings | changes


def token(lifetime_s: float = 3600) -> str:
    """An unsigned token, as Kafka's validator for tests accepts it."""
    now = time.time()
    claims = {"sub": USER, "iat": now - 1, "exp": now + lifetime_s}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims)
    ]
    return ".".join([*parts, ""])


@contextlib.contextmanager
def secured_kafka(folder: Path, users: Mapping[str, str] | None = None, hub: int = 0) -> Iterator[Secured]:
    """Starts the broker.

    Arguments:
        folder: of certificates and data.
        users: of PLAIN, with their passwords.
        hub: port of a proxy that adds TLS to the listener `HUB`, which demands a login; it advertises this port.
    """
    users = {USER: PASSWORD, CLERK: PASSWORD, "$ConnectionString": CONNECTION_STRING} if users is None else users
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    write_certificate(ca, "localhost", folder, "127.0.0.1")
    write_certificate(ca, "client", folder)
    write_certificate(ca, "elsewhere", folder)
    plain = " ".join(f'user_{name}="{password}"' for name, password in users.items())
    login = {
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        "plain.sasl.jaas.config": f"{_MODULES}.plain.PlainLoginModule required {plain};",
        "scram-sha-256.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        "scram-sha-512.sasl.jaas.config": f"{_MODULES}.scram.ScramLoginModule required;",
        "oauthbearer.sasl.jaas.config": f"{_MODULES}.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker";',
        # Ends connections whose token has expired.
        "oauthbearer.connections.max.reauth.ms": "3600000",
    }
    with Cluster(
        folder / "kafka",
        listeners={"LOGIN": {1: 0}, "MTLS": {1: 0}, "HUB": {1: hub}},
        properties={
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,MTLS:SSL,"
            "HUB:SASL_PLAINTEXT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(folder / "localhost.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(folder / "ca.pem"),
            "listener.name.mtls.ssl.client.auth": "required",
            **{f"listener.name.login.{name}": value for name, value in login.items()},
            "listener.name.hub.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.hub.plain.sasl.jaas.config": login["plain.sasl.jaas.config"],
        },
    ) as cluster:
        _add_scram_user(cluster.bootstrap_servers)
        yield Secured(cluster, folder)


def write_certificate(ca: trustme.CA, name: str, folder: Path, *others: str) -> None:
    """Writes `NAME.pem`, key and certificates as Kafka wants them, and both apart."""
    issued = ca.issue_cert(name, *others)
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    (folder / f"{name}.key").write_bytes(key)
    (folder / f"{name}.crt").write_bytes(chain)
    (folder / f"{name}.pem").write_bytes(key + chain)


def _add_scram_user(servers: str) -> None:
    admin: Any = confluent_kafka.admin  # it exports these names without saying so
    client = admin.AdminClient({"bootstrap.servers": servers})
    for mechanism in (admin.ScramMechanism.SCRAM_SHA_256, admin.ScramMechanism.SCRAM_SHA_512):
        change = admin.UserScramCredentialUpsertion(USER, admin.ScramCredentialInfo(mechanism, 4096), PASSWORD.encode())
        [done] = client.alter_user_scram_credentials([change]).values()
        done.result(30)


def forbid_transactions(servers: str) -> None:
    """Denies transactional ids to `CLERK`, and allows them to everybody else."""
    admin: Any = confluent_kafka.admin
    rules = [
        admin.AclBinding(
            admin.ResourceType.TRANSACTIONAL_ID,
            "*",
            admin.ResourcePatternType.LITERAL,
            f"User:{user}",
            "*",
            admin.AclOperation.ALL,
            permission,
        )
        for user, permission in (("*", admin.AclPermissionType.ALLOW), (CLERK, admin.AclPermissionType.DENY))
    ]
    client = admin.AdminClient({"bootstrap.servers": servers})  # which must outlive its futures
    for done in client.create_acls(rules).values():
        done.result(30)
