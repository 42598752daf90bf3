# One image for every part: `run` (the whole, on the embedded engine), `api`, `worker`, and the
# sample agents. docs/docker.md tells how to use it.

FROM python:3.11.16-slim-bookworm AS build
WORKDIR /src
# No pip in the environment: the base image's own installs into it.
RUN python -m venv --without-pip /opt/venv
# The locked dependencies are a layer of their own, which a change of the code leaves alone. They
# include the embedded engine, 150 MB that only `run` uses: the default command is to work alone.
COPY requirements.txt ./
RUN pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
    --only-binary :all: --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE worker.py ./
COPY orchestrator/ orchestrator/
COPY activities/ activities/
COPY workflows/ workflows/
COPY api/ api/
COPY examples/ examples/
RUN pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check \
    --no-deps --no-build-isolation .

FROM python:3.11.16-slim-bookworm
# Numbers, so that an orchestrator of containers can see that it is not root.
RUN groupadd --gid 10001 orchestrator \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data orchestrator \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data /run/orchestrator
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY config.yaml ./
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ORCHESTRATOR_CONFIG=/app/config.yaml \
    ORCHESTRATOR_DATA_DIR=/data \
    # Beyond the container. So the API starts only with keys, or where security.allow_anonymous says
    # that it shall ask nobody.
    ORCHESTRATOR_AGENT__HOST=0.0.0.0
USER 10001:10001
# The API, and its metrics for Prometheus.
EXPOSE 8000 9090
STOPSIGNAL SIGTERM
# For `run` and `api`; another command brings its own check, or none. Without the engine it lives on.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/live', timeout=4)"]
ENTRYPOINT ["orchestrator"]
CMD ["run"]
