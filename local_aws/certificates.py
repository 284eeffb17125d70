"""The embedded AWS's own certificate authority and the certificate it serves.

The authority's key exists only while the certificate is signed and is never written: whoever trusts `ca.pem`
trusts that one certificate and nothing that could be forged later.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from local_aws.state import DEFAULT_REGION, Home

LIFETIME = datetime.timedelta(days=397)
RENEW_BEFORE = datetime.timedelta(days=7)


def host_names(region: str = DEFAULT_REGION) -> list[str]:
    """The names a client may use for this server: loopback, and AWS hosts that tokens and clients name."""
    return [
        "localhost",
        "*.execute-api.localhost",
        "*.s3.localhost",
        f"cognito-idp.{region}.amazonaws.com",
        f"*.auth.{region}.amazoncognito.com",
        f"*.execute-api.{region}.amazonaws.com",
        f"runtime.sagemaker.{region}.amazonaws.com",
        f"*.{region}.amazonaws.com",
        f"*.s3.{region}.amazonaws.com",
    ]


def ensure_certificates(home: Home, region: str = DEFAULT_REGION) -> None:
    """Create `ca.pem`, `server.pem` (certificate and authority) and its key, unless usable ones are there."""
    if not _usable(home, region):
        _create(home, region)


def _usable(home: Home, region: str) -> bool:
    if not (home.ca.is_file() and home.key.is_file() and home.certificate.is_file()):
        return False
    try:
        leaf, authority = x509.load_pem_x509_certificates(home.certificate.read_bytes())
        trusted = x509.load_pem_x509_certificate(home.ca.read_bytes())
        key = serialization.load_pem_private_key(home.key.read_bytes(), password=None)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    return (
        trusted == authority
        and key.public_key() == leaf.public_key()
        and set(host_names(region)) <= set(names.get_values_for_type(x509.DNSName))
        and leaf.not_valid_after_utc - RENEW_BEFORE > datetime.datetime.now(datetime.UTC)
    )


def _create(home: Home, region: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Embedded AWS (this checkout only)")])
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    certificate = (
        _builder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]),
            authority_name,
            key.public_key(),
            now,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [*map(x509.DNSName, host_names(region)), *map(x509.IPAddress, addresses)]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    _write(home.ca, authority.public_bytes(pem), 0o644)
    _write(home.certificate, certificate.public_bytes(pem) + authority.public_bytes(pem), 0o644)
    _write(
        home.key,
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        0o600,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # An hour of grace, for machines whose clock steps back after a suspend.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write atomically; the file never exists with wider permissions than `mode`."""
    staging = path.with_suffix(".staging")
    staging.unlink(missing_ok=True)
    with os.fdopen(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    staging.replace(path)
