"""A bundle is signed by a key's owner, or it is refused where somebody asks for that."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from fuseline.errors import BundleError
from fuseline.runtime import Predictor
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.signature import sign

FORMATS = {
    "ssh": (serialization.PrivateFormat.OpenSSH, serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH),
    "pem": (serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo),
}  # fmt: skip


def make_key(folder: Path, name: str = "key", form: str = "ssh", passphrase: bytes | None = None, rsa: bool = False):
    """Write a pair of keys as `ssh-keygen` or `openssl` do; return the private and the public one."""
    key = generate_private_key(65537, 2048) if rsa else Ed25519PrivateKey.generate()
    private, encoding, public = FORMATS[form]
    lock = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    (folder / name).write_bytes(key.private_bytes(serialization.Encoding.PEM, private, lock))
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(encoding, public))
    return folder / name, folder / f"{name}.pub"


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_signed_is_taken_by_the_owners_key(form: str, copy: Path, tmp_path: Path) -> None:
    private, public = make_key(tmp_path, form=form)
    assert sign(copy, private) == copy / "bundle.sig"
    assert Predictor(copy, ["CPUExecutionProvider"], public_key=public).bundle == read_bundle(copy, public)


def test_signing_again_gives_the_same_bytes(copy: Path, tmp_path: Path) -> None:
    private, _ = make_key(tmp_path)
    assert sign(copy, private).read_bytes() == sign(copy, private).read_bytes()


def test_another_key_is_refused(copy: Path, tmp_path: Path, no_session: None) -> None:
    sign(copy, make_key(tmp_path)[0])
    _, other = make_key(tmp_path, "other")
    with pytest.raises(BundleError, match="not the signature of .*other.pub's owner"):
        Predictor(copy, public_key=other)


def test_a_bundle_without_a_signature_is_refused_where_one_is_asked_for(
    copy: Path, tmp_path: Path, no_session: None
) -> None:
    with pytest.raises(BundleError, match=r"not signed \(no bundle\.sig\)"):
        Predictor(copy, public_key=make_key(tmp_path)[1])


def test_a_key_may_be_given_as_a_string(copy: Path, tmp_path: Path, no_session: None) -> None:
    with pytest.raises(BundleError, match=r"not signed \(no bundle\.sig\)"):
        Predictor(copy, public_key=str(make_key(tmp_path)[1]))


@pytest.mark.parametrize("name", ["bundle.json", "bundle.sig"])
def test_one_changed_byte_in_what_is_signed_or_in_the_signature_is_refused(
    name: str, copy: Path, tmp_path: Path, no_session: None
) -> None:
    private, public = make_key(tmp_path)
    sign(copy, private)
    data = (copy / name).read_bytes()
    for at in range(0, len(data), max(1, len(data) // 60)):
        (copy / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(BundleError, match="one of the two files was altered"):
            Predictor(copy, public_key=public)


def test_the_environment_asks_for_a_signature(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_session: None
) -> None:
    private, public = make_key(tmp_path)
    monkeypatch.setenv("FUSELINE_PUBLIC_KEY", str(public))
    for look in (Predictor, read_bundle):
        with pytest.raises(BundleError, match="not signed .* or unset FUSELINE_PUBLIC_KEY"):
            look(copy)
    assert read_bundle(copy, None).name == "tiny"
    sign(copy, private)
    assert read_bundle(copy).name == "tiny"


@pytest.mark.parametrize("rsa", [False, True], ids=["what is no key", "a key of another kind"])
def test_is_refused_as_a_key(rsa: bool, copy: Path, tmp_path: Path) -> None:
    private, public = make_key(tmp_path, rsa=rsa)
    if not rsa:
        private.write_text("no key")
        public.write_text("no key")
    with pytest.raises(BundleError, match="no private Ed25519 key; `ssh-keygen"):
        sign(copy, private)
    with pytest.raises(BundleError, match="no public Ed25519 key"):
        read_bundle(copy, public)


def test_a_key_with_a_passphrase_and_one_that_is_not_there_are_named(copy: Path, tmp_path: Path) -> None:
    private, _ = make_key(tmp_path, form="pem", passphrase=b"secret")
    with pytest.raises(BundleError, match="the key has a passphrase"):
        sign(copy, private)
    with pytest.raises(BundleError, match=r"nowhere: the key cannot be read \(No such file or directory\)"):
        read_bundle(copy, tmp_path / "nowhere")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_alone_checks_a_signature(copy: Path, tmp_path: Path) -> None:
    private, public = make_key(tmp_path, form="pem")
    sign(copy, private)
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-in", "bundle.json", "-sigfile", "bundle.sig", "-pubin",
               "-inkey", str(public)]  # fmt: skip
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert "Verified Successfully" in done.stdout, done.stderr
