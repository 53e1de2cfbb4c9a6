#!/bin/sh
# Bring the worker's clone up to date with origin: when a worker starts, and before each run.
set -eu
cd "$FUSELINE_REPOSITORY"

git fetch --quiet --tags origin
git merge --quiet --ff-only "@{upstream}"  # refuses when the clone holds commits that origin lacks: a person decides

# The lock is an input of every stage: another environment than the locked one would train a model nobody can rebuild.
if ! cmp -s requirements.lock /opt/fuseline/requirements.lock; then
    echo "requirements.lock differs from the one this image was built with; build the image again" >&2
    exit 1
fi
