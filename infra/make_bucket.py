"""Create the bucket of the DVC remote unless it is there already; run once by compose.yaml."""

from __future__ import annotations

import os

import botocore.exceptions
import botocore.session


def make_bucket(endpoint: str, bucket: str) -> None:
    """Create a bucket; one that this account owns already is left as it is."""
    client = botocore.session.get_session().create_client("s3", endpoint_url=endpoint)
    try:
        client.head_bucket(Bucket=bucket)
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
            raise
        client.create_bucket(Bucket=bucket)


if __name__ == "__main__":
    make_bucket(os.environ["FUSELINE_S3_ENDPOINT"], os.environ["FUSELINE_S3_BUCKET"])
