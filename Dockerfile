# The app by default, the walk by another command:
#   docker build -t bhi .
#   docker run --rm -p 127.0.0.1:7860:7860 -e BHI_USER=me -e BHI_PASSWORD=secret bhi
#   docker run --rm -v bhi-runs:/srv/bhi/runs bhi bhi run
FROM debian:trixie-slim

RUN apt-get update -q \
    && apt-get install -y -q --no-install-recommends ca-certificates git make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --home-dir /srv/user --uid 1000 bhi \
    && install -d -o bhi /opt/venv /srv/bhi /srv/bhi/data /srv/bhi/runs

USER bhi
WORKDIR /srv/bhi
ENV PATH=/opt/venv/bin:$PATH
ENV HOME=/srv/user
COPY --chown=bhi . .
RUN python3 -m venv /opt/venv && pip install --no-cache-dir --disable-pip-version-check -c constraints.txt -e .

EXPOSE 7860
# asks for no login and shows nothing but that the app answers
HEALTHCHECK --start-period=60s CMD python -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health', timeout=5)"
# a container has to listen on all its addresses, so the app starts only with BHI_USER and BHI_PASSWORD, or with BHI_NO_PASSWORD=1
CMD ["bhi", "app", "--host", "0.0.0.0"]
