# syntax=docker/dockerfile:1
# One image for both consumers and the command line. EXTRAS picks the build of faiss: `cpu`, or `gpu` for an image
# that searches on a GPU too (encoding on a GPU needs no other image); add `demo` for the offline encoder `mini`.
# PIP_EXTRA_INDEX_URL may name an index of CPU-only builds of torch, which save gigabytes.

FROM python:3.11.14-slim-bookworm AS build
ARG EXTRAS=cpu
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src

# The dependencies first, in a layer that a change of our code leaves alone.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir zccr_stream consumers migrations \
    && echo '__version__ = "0"' > zccr_stream/__init__.py && touch consumers/__init__.py migrations/__init__.py \
    && pip install --only-binary :all: --constraint constraints.txt ".[${EXTRAS}]"

COPY zccr_stream zccr_stream
COPY consumers consumers
COPY migrations migrations
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall .


FROM python:3.11.14-slim-bookworm
# A named volume takes the owner that its folder has in the image.
RUN groupadd --gid 10001 zccr \
    && useradd --uid 10001 --gid zccr --home-dir /cache --no-create-home --shell /usr/sbin/nologin zccr \
    && install --directory --owner zccr --group zccr /cache /snapshots
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    HOME=/cache \
    HF_HOME=/cache/huggingface
WORKDIR /cache
USER 10001:10001
EXPOSE 9100
VOLUME ["/cache", "/snapshots"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('ZCCR_METRICS_PORT', 9100)}/livez\", timeout=4)"]
CMD ["zccr-stream", "--help"]
