# One image for all of our own parts; compose.yaml shows them together.
FROM python:3.13-slim-trixie

WORKDIR /srv/prepaid
# The same locked list that the tests ran with, test tools included: nothing differs but the host.
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r requirements.lock

COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --no-index . \
    && useradd --system --create-home prepaid \
    && install --directory --owner prepaid --mode 0700 /var/lib/prepaid
USER prepaid
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["prepaid"]
CMD ["up"]
