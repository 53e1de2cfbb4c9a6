"""`fuseline sign` and `fuseline verify`: who vouches for a bundle, and whether anything in it was altered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fuseline.cli import app, told_plainly

BUNDLE = typer.Argument(help="A bundle's folder, such as champion/.")


@app.command()
@told_plainly
def sign(
    bundle: Annotated[Path, BUNDLE],
    key: Annotated[Path, typer.Option(help="A private Ed25519 key without passphrase: OpenSSH's or PEM.")],
) -> None:
    """Sign a bundle's bundle.json, which holds the digests of all its files: writes bundle.sig."""
    from fuseline.runtime import bundle as bundles
    from fuseline.runtime import signature

    bundles.read_bundle(bundle, None)  # whoever signs vouches for all of it
    typer.echo(f"{signature.sign(bundle, key)} written")


@app.command()
@told_plainly
def verify(
    bundle: Annotated[Path, BUNDLE],
    key: Annotated[
        Path | None,
        typer.Option(help="The signer's public key, OpenSSH's or PEM; FUSELINE_PUBLIC_KEY in the environment else."),
    ] = None,
) -> None:
    """Check the sha256 of every file of a bundle and, where a key is given, its signature."""
    import os

    from fuseline.runtime import bundle as bundles
    from fuseline.runtime import signature

    asked = key or os.environ.get(signature.PUBLIC_KEY)
    found = bundles.read_bundle(bundle, Path(asked) if asked else None)
    signed = f"signed by the owner of {asked}" if asked else "no key given, so no signature was asked for"
    typer.echo(f"{bundle}: {found.name}, {len(found.files)} files as bundle.json says; {signed}")
