"""How a deployment is to run: the options that `model deploy` and `endpoint update` share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trainyard._cli.common import wrong

Script = Annotated[
    str, typer.Option("--script", help="a scoring script with init() and run(raw_data), which answers over REST", show_default=False)
]
Source = Annotated[
    str, typer.Option("--source", help="the folder that the script is in; without it the script's file alone", show_default=False)
]
EnvironmentName = Annotated[
    str, typer.Option("--environment", help="what the script may import: a registered or curated NAME, or NAME:VERSION", show_default=False)
]
Cores = Annotated[float | None, typer.Option("--cpu-cores", help="bound of the threads that compute", show_default=False)]
Memory = Annotated[float | None, typer.Option("--memory-gb", help="bound of the server's memory, in GiB", show_default=False)]
Idle = Annotated[
    int | None,
    typer.Option(
        "--idle-seconds",
        min=0,
        help="without a call for so long its server ends until the next call through the door; 0: never",
        show_default=False,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--sample-rate",
        min=0,
        max=1,
        help="the part of its calls that is kept with request and answer on trainyard.inference: 0 none, 1 all",
        show_default=False,
    ),
]
Auth = Annotated[str, typer.Option("--auth", help="who may call: none (everybody), key or token", show_default=False)]
TlsCertificate = Annotated[
    str, typer.Option("--tls-cert", help="PEM file of a certificate: it speaks TLS; goes with the other two", show_default=False)
]
TlsKey = Annotated[str, typer.Option("--tls-key", help="PEM file of the certificate's key", show_default=False)]
TlsName = Annotated[str, typer.Option("--tls-name", help="the host name by which its callers reach it", show_default=False)]


def authentication_of(text: str) -> tuple[bool | None, bool | None]:
    """--auth as (auth_enabled, token_auth_enabled); None where it was not given."""
    known: dict[str, tuple[bool | None, bool | None]] = {
        "": (None, None),
        "none": (False, False),
        "key": (True, None),
        "token": (None, True),
    }
    if text not in known:
        raise wrong(f"--auth is none, key or token, not {text!r}.", "--auth")
    return known[text]


def script_of(space: Any, script: str, source: str, environment: str) -> Any:
    """The InferenceConfig of --script and its like; None without."""
    from trainyard._environment import Environment
    from trainyard._inference_config import InferenceConfig

    if not script:
        if source or environment:
            raise wrong("--source and --environment go with --script.", "--script")
        return None
    name, _, version = environment.partition(":")
    found = Environment.get(space, name, version or None) if name else None
    return InferenceConfig(script, source_directory=source or None, environment=found)


def tls_of(certificate: str, key: str, name: str, *, ended: bool = False) -> dict[str, Any]:
    """--tls-cert and its like as options of a deployment; `ended`: --no-tls."""
    given = (certificate, key, name)
    if ended and any(given):
        raise wrong("--no-tls goes with none of --tls-cert, --tls-key and --tls-name.", "--no-tls")
    if any(given) and not all(given):
        raise wrong("--tls-cert, --tls-key and --tls-name go together.", "--tls-cert")
    if not any(given):
        return {"ssl_enabled": False} if ended else {}
    return {"ssl_enabled": True, "ssl_cert_pem_file": certificate, "ssl_key_pem_file": key, "ssl_cname": name}
