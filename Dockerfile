# Two images: `service` answers Envoy, `pool` is a simulated vLLM for machines without one.
#   docker build --target service -t dualpool .
#   docker build --target pool -t dualpool-pool .
# The health checks are bash's: the image has no curl, and Python takes half a second to start.
FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# A tool of this stage alone: none of it is in an image.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/requirements.txt deploy/requirements-build.txt /tmp/deploy/
# Without debug symbols and numpy's tests the libraries take a third less. numpy's own are left
# as they are: their wheel has rewritten them in a way that strip does not know.
RUN python -m venv --without-pip /opt/build \
    && pip --python /opt/build/bin/python install --require-hashes -r /tmp/deploy/requirements-build.txt \
    && python -m venv --without-pip /opt/dualpool \
    && pip --python /opt/dualpool/bin/python install --require-hashes -r /tmp/deploy/requirements.txt \
    && find /opt/dualpool -name '*.so' -not -path '*/numpy*' -exec strip --strip-unneeded {} + \
    && find /opt/dualpool -depth -type d -name tests -exec rm -r {} +
WORKDIR /src
COPY . .
# hatchling is there by its hash: a build that isolates itself would fetch another one without.
RUN /opt/build/bin/python -m hatchling build -t wheel \
    && pip --python /opt/dualpool/bin/python install --no-deps --no-index dist/*.whl

FROM build AS build-pool
COPY deploy/requirements-pool.txt /tmp/deploy/
RUN pip --python /opt/dualpool/bin/python install --require-hashes -r /tmp/deploy/requirements-pool.txt

FROM python:3.12-slim AS base
# Docker gives a new volume the owner of the folder under it: /run/dualpool is the service's,
# /var/lib/vllm that of the user `vllm` of vLLM's own image.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin dualpool \
    && install -d -o 10001 -g 10001 /run/dualpool \
    && install -d -o 2000 -g 0 -m 775 /var/lib/vllm
ENV PATH=/opt/dualpool/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001

FROM base AS pool
COPY --from=build-pool /opt/dualpool /opt/dualpool
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.1 200' <&3"]
ENTRYPOINT ["python", "-m", "extproc.simulator.pool.server", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS service
COPY envoy/dualpool.yaml /etc/dualpool/dualpool.yaml
COPY --from=build /opt/dualpool /opt/dualpool
EXPOSE 50051 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8081 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.1 200' <&3"]
# Exec form: SIGTERM reaches the service itself, which then drains.
ENTRYPOINT ["dualpool"]
CMD ["serve", "--config", "/etc/dualpool/dualpool.yaml"]
