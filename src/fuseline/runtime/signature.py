"""Who vouches for a bundle: an Ed25519 signature (RFC 8032) over the bytes of bundle.json, which holds all digests.

Its 64 bytes lie in bundle.sig as they are, so that OpenSSL alone can check them:
`openssl pkeyutl -verify -rawin -in bundle.json -sigfile bundle.sig -pubin -inkey key.pub.pem`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fuseline.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "bundle.sig"
PUBLIC_KEY, SIGNING_KEY = "FUSELINE_PUBLIC_KEY", "FUSELINE_SIGNING_KEY"
"""Environment: paths of keys. They are no params: who trusts whom changes no result."""
FROM_ENVIRONMENT: Literal["environment"] = "environment"
Key = Path | str | None
"""A public key's file; `environment` takes what PUBLIC_KEY says, where it is set; None asks for no signature."""
MAKE = "`ssh-keygen -t ed25519 -N '' -f KEY` or `openssl genpkey -algorithm ed25519 -out KEY` makes one"


def check_signature(folder: Path, card: bytes, key: Key) -> None:
    """Refuse a bundle that the owner of a key did not sign; without a key, signatures are not looked at.

    Args:
        card: the bytes of bundle.json that are going to be used.

    Raises:
        BundleError: there is no signature, it is of other bytes or another key, or the key cannot be read.
    """
    asked = os.environ.get(PUBLIC_KEY) if key == FROM_ENVIRONMENT else key
    if not asked:
        return
    path = Path(asked)
    from cryptography.exceptions import InvalidSignature  # here: most bundles are not signed

    public = _load_public(path)
    try:
        public.verify((folder / SIGNATURE).read_bytes(), card)
    except FileNotFoundError:
        raise BundleError(
            f"{folder}: not signed (no {SIGNATURE}), but {path} asks for a signature; sign it with `fuseline sign`, or "
            f"unset {PUBLIC_KEY}"
        ) from None
    except InvalidSignature:
        raise BundleError(
            f"{folder / SIGNATURE}: not the signature of {path}'s owner over this bundle.json: another key signed it, "
            "or one of the two files was altered"
        ) from None


def sign(folder: Path, key: Path) -> Path:
    """Sign a bundle's bundle.json; return the file of the signature.

    Raises:
        BundleError: the key cannot be read, or is no Ed25519 key.
    """
    target = folder / SIGNATURE
    target.write_bytes(_load_private(key).sign((folder / "bundle.json").read_bytes()))
    return target


def _load_public(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    data = _read(path)
    load = serialization.load_ssh_public_key if data.startswith(b"ssh-") else serialization.load_pem_public_key
    try:
        found = load(data)
    except (ValueError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, Ed25519PublicKey):
        raise BundleError(f"{path}: no public Ed25519 key, as OpenSSH (KEY.pub) or PEM; {MAKE}")
    return found


def _load_private(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    data = _read(path)
    of_ssh = b"OPENSSH PRIVATE KEY" in data
    try:
        found = (serialization.load_ssh_private_key if of_ssh else serialization.load_pem_private_key)(data, None)
    except TypeError:
        raise BundleError(f"{path}: the key has a passphrase; expected one without, readable by you alone") from None
    except (ValueError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, Ed25519PrivateKey):
        raise BundleError(f"{path}: no private Ed25519 key; {MAKE}")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: the key cannot be read ({error.strerror})") from error
