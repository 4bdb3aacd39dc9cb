"""Which cluster a command talks to: the URL, with what the global options add to it.

The token is a secret: it goes into the client, never into a message, and into a command's environment only where the environment
had it already.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import click

from coord_core.cli.exits import CommandFailed, Exit
from coord_core.cli.settings import Settings
from coord_core.client.url import ClientUrl, parse_url

#: Where `coord server` listens when it is told nothing else.
DEFAULT_URL = "coord://127.0.0.1:7400"


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed URL with the options applied."""

    url: ClientUrl
    token_file: str | None

    @property
    def text(self) -> str:
        """The whole URL, token included: for the client only."""
        return format_url(self.url)

    def environment(self) -> dict[str, str]:
        """Return what a command needs to reach the same cluster.

        A token comes along where this process's own environment named it in COORD_URL; one from --url stays out, because other
        users may read an environment where they may not read a command line.
        """
        inherited = os.environ.get("COORD_URL", "")
        keeps_token = bool(inherited) and parse_url(inherited).token == self.url.token
        found = {"COORD_URL": format_url(self.url if keeps_token else replace(self.url, token=""))}
        if self.token_file is not None:
            found["COORD_TOKEN_FILE"] = os.path.abspath(self.token_file)
        return found


def default_hint(settings: Settings) -> str:
    """Return what to add where nobody answers: who gave no URL may not know who was asked."""
    if settings.url is not None:
        return ""
    return f"; no cluster was named (--url or COORD_URL), so {DEFAULT_URL} was asked: `coord dev` starts a cluster to try things on"


def target_of(settings: Settings, *, ttl: float | None = None) -> Target:
    """Apply the options to the URL.

    Raises:
        InvalidUrl: the URL, or what an option made of it.
        click.UsageError: options that do not go together.
        CommandFailed: with exit code 4 where the token's file cannot be read.
    """
    url = parse_url(settings.url or DEFAULT_URL)
    if (settings.cacert or settings.cert or settings.key) and not url.tls:
        raise click.UsageError("--cacert, --cert and --key are for TLS: the URL must begin with coords://")
    url = replace(
        url,
        ca=settings.cacert or url.ca,
        cert=settings.cert or url.cert,
        key=settings.key or url.key,
        timeout_ms=round(settings.timeout * 1000),
    )
    if settings.namespace is not None:
        url = replace(url, namespace="/" + settings.namespace.strip("/") if settings.namespace.strip("/") else "")
    if ttl is not None:
        url = replace(url, ttl_ms=round(ttl * 1000))
    if settings.token_file is not None:
        url = replace(url, token=_read_token(settings.token_file))
    # Written and read once more: what the options said is held to the same rules as what a URL says.
    return Target(parse_url(format_url(url)), settings.token_file)


def format_url(url: ClientUrl) -> str:
    """Write a URL that `parse_url` reads as `url`."""
    token = f"{quote(url.token, safe='')}@" if url.token else ""
    usual = ClientUrl(())
    times = {"ttl": (url.ttl_ms, usual.ttl_ms), "timeout": (url.timeout_ms, usual.timeout_ms)}
    options = {name: f"{ms}ms" for name, (ms, usual_ms) in times.items() if ms != usual_ms}
    options |= {name: quote(value, safe="/") for name in ("ca", "cert", "key") if (value := getattr(url, name))}
    if url.embedded:
        options |= {"namespace": quote(url.namespace, safe="/")} if url.namespace else {}
    query = "?" + "&".join(f"{name}={value}" for name, value in options.items()) if options else ""
    if url.embedded:
        return f"coord+embedded://{quote(url.addresses[0], safe='/')}{query}"
    return f"coord{'s' if url.tls else ''}://{token}{','.join(url.addresses)}{quote(url.namespace, safe='/')}{query}"


def _read_token(path: str) -> str:
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(
            Exit.AUTH, f"the token's file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not token:
        raise CommandFailed(Exit.AUTH, f"the token's file {path} is empty")
    return token
