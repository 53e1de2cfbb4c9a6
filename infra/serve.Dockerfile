# syntax=docker/dockerfile:1
# A bundle behind HTTP: Python, the packages of serve.lock, our code. No compiler, no shell of the server's own, no torch.
# The bundle is mounted, so that a new champion needs no new image.
FROM python:3.12-slim-bookworm AS packages

COPY --from=ghcr.io/astral-sh/uv:0.13.9 /uv /usr/local/bin/uv

WORKDIR /opt
COPY infra/serve.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv /opt/venv \
    && UV_LINK_MODE=copy uv pip sync --require-hashes --compile-bytecode --python /opt/venv/bin/python serve.lock
COPY src/fuseline /opt/fuseline/fuseline
RUN python -m compileall -q /opt/fuseline

FROM python:3.12-slim-bookworm

# The id matters where the bundle is not for all to read: the worker's, by default.
ARG UID=1000
RUN useradd --uid "$UID" --no-create-home --shell /usr/sbin/nologin fuseline
COPY --from=packages /opt/venv /opt/venv
COPY --from=packages /opt/fuseline /opt/fuseline
USER fuseline

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/fuseline \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "fuseline.cli", "serve"]
# Inside a container; whoever publishes the port says to whom.
CMD ["/bundle", "--host", "0.0.0.0"]
