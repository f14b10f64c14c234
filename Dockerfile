# Two images: `service` is the ext_proc service, `pool` a simulated vLLM for machines without GPUs.
#   docker build --target service -t dualpool .
#   docker build --target pool -t dualpool-pool .
# The health checks use bash: the image has no curl, and Python takes half a second to start. Their
# retries outlast a restart on a busy machine: Compose starts nothing that depends on an unhealthy one.
# The digest fixes the base for all platforms; CONTRIBUTING.md says how to renew it.
FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The compiler is needed in this stage only; it is in neither image.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/requirements.txt deploy/requirements-tokenizer.txt deploy/requirements-build.txt /tmp/deploy/
# For `models.tokenizer`, without what only downloads vocabularies. Removing debug symbols and tests makes the libraries a third smaller. numpy's libraries stay as
# they are: its wheel is built in a way that strip would break.
RUN python -m venv --without-pip /opt/build \
    && pip --python /opt/build/bin/python install --no-deps --require-hashes -r /tmp/deploy/requirements-build.txt \
    && python -m venv --without-pip /opt/dualpool \
    && pip --python /opt/dualpool/bin/python install --require-hashes -r /tmp/deploy/requirements.txt \
    && pip --python /opt/dualpool/bin/python install --no-deps --require-hashes -r /tmp/deploy/requirements-tokenizer.txt \
    && find /opt/dualpool -name '*.so' -not -path '*/numpy*' -exec strip --strip-unneeded {} + \
    && find /opt/dualpool -depth -type d -name tests -exec rm -r {} +
WORKDIR /src
COPY . .
# hatchling was installed by its hash; an isolated build would download another one unchecked. Its
# hook compiles what every request passes through, and reads the types of the packages for that.
RUN echo /opt/dualpool/lib/python3.12/site-packages > /opt/build/lib/python3.12/site-packages/dualpool.pth \
    && HATCH_BUILD_HOOK_ENABLE_CUSTOM=true /opt/build/bin/python -m hatchling build -t wheel \
    && pip --python /opt/dualpool/bin/python install --no-deps --no-index dist/*.whl

FROM build AS build-pool
COPY deploy/requirements-pool.txt /tmp/deploy/
RUN pip --python /opt/dualpool/bin/python install --require-hashes -r /tmp/deploy/requirements-pool.txt

FROM python:3.12-slim@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea AS base
# A new volume takes owner and mode of the folder that it covers: those below /run and
# /var/lib/dualpool belong to the service, /var/lib/vllm to the user `vllm` of vLLM's own image.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin dualpool \
    && install -d -o 10001 -g 10001 /run/dualpool \
    && install -d -o 10001 -g 10001 -m 750 /run/dualpool-socket \
        /run/dualpool-tls/service /run/dualpool-tls/envoy /var/lib/dualpool \
    && install -d -o 2000 -g 0 -m 775 /var/lib/vllm
# numpy would start a thread for each core, and the service multiplies no matrix that is worth one.
ENV PATH=/opt/dualpool/bin:$PATH PYTHONUNBUFFERED=1 OPENBLAS_NUM_THREADS=1
USER 10001:10001

FROM base AS pool
COPY --from=build-pool /opt/dualpool /opt/dualpool
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=12 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.1 200' <&3"]
ENTRYPOINT ["python", "-m", "extproc.simulator.pool.server", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS service
COPY envoy/dualpool.yaml /etc/dualpool/dualpool.yaml
COPY --from=build /opt/dualpool /opt/dualpool
EXPOSE 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=12 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8081 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q '^HTTP/1.1 200' <&3"]
# Exec form, so that SIGTERM reaches the service, which then drains.
ENTRYPOINT ["dualpool"]
CMD ["serve", "--config", "/etc/dualpool/dualpool.yaml"]
