FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/orders
COPY requirements.lock ./
RUN /opt/orders/bin/pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY runtime runtime
COPY orders_service orders_service
COPY validators validators
COPY email_service email_service
COPY fulfilment_service fulfilment_service
COPY checkin_service checkin_service
COPY portal_service portal_service
COPY products_service products_service
COPY product_subscribers product_subscribers
COPY history_service history_service
COPY webhook_service webhook_service
COPY board_service board_service
COPY ecosystem ecosystem
RUN /opt/orders/bin/pip install --no-deps .

FROM python:3.11-slim
# The folder is made here, so that a fresh named volume mounted on it belongs to the user.
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/orders --create-home orders \
    && install --directory --owner=orders --group=orders /var/lib/orders/state
COPY --from=build /opt/orders /opt/orders
ENV PATH=/opt/orders/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HTTP_HOST=0.0.0.0 \
    HTTP_PORT=8080 \
    STATE_DIR=/var/lib/orders/state
USER orders
WORKDIR /var/lib/orders
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"HTTP_PORT\"]}/healthz', timeout=3)"]
ENTRYPOINT ["orders"]
CMD ["run", "orders", "fraud", "inventory", "details"]
