#!/bin/sh
# Make the worker's own clone, point its DVC remote at the bucket, then become a Prefect worker.
set -eu

if [ ! -d "$FUSELINE_REPOSITORY/.git" ]; then
    git clone "$FUSELINE_GIT_URL" "$FUSELINE_REPOSITORY"
fi
cd "$FUSELINE_REPOSITORY"
git remote set-url origin "$FUSELINE_GIT_URL"
/opt/fuseline/update.sh

dvc remote modify --quiet --local artifacts url "s3://$FUSELINE_S3_BUCKET/dvc"
dvc remote modify --quiet --local artifacts endpointurl "$FUSELINE_S3_ENDPOINT"

exec prefect worker start --pool fuseline --type process --limit 1 --with-healthcheck
