#!/bin/sh
# Bring the worker's own clone up to date, point its DVC remote at the bucket, then become a Prefect worker.
set -eu

if [ ! -d "$FUSELINE_REPOSITORY/.git" ]; then
    git clone "$FUSELINE_GIT_URL" "$FUSELINE_REPOSITORY"
fi
cd "$FUSELINE_REPOSITORY"
git remote set-url origin "$FUSELINE_GIT_URL"
git fetch --tags origin
git merge --ff-only "@{upstream}"  # refuses when the clone holds commits that origin lacks: a person decides

# The lock is an input of every stage: another environment than the locked one would train a model nobody can rebuild.
if ! cmp -s requirements.lock /opt/fuseline/requirements.lock; then
    echo "requirements.lock differs from the one this image was built with; build the image again" >&2
    exit 1
fi

dvc remote modify --quiet --local artifacts url "s3://$FUSELINE_S3_BUCKET/dvc"
dvc remote modify --quiet --local artifacts endpointurl "$FUSELINE_S3_ENDPOINT"

exec prefect worker start --pool fuseline --type process --limit 1 --with-healthcheck
