"""`trainyard model alias|unalias|stage|update|delete`: what changes of a registered version."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trainyard._cli.common import Config, Json, Yes, confirm, pairs, wrong
from trainyard._cli.model_names import Name, model_of, row
from trainyard._cli.output import one

Alias = Annotated[str, typer.Argument(help="the alias: NAME@ALIAS then means the version")]


def model_alias(name: Name, alias: Alias, as_json: Json = False, config: Config = None) -> None:
    """Let an alias point at a version; one that points elsewhere moves in one step."""
    found = model_of(config, name)
    found.set_alias(alias)
    one(row(found), as_json=as_json)


def model_unalias(name: Annotated[str, typer.Argument(help="NAME@ALIAS")], as_json: Json = False, config: Config = None) -> None:
    """Take an alias away."""
    plain, _, alias = name.partition("@")
    if not plain or not alias:
        raise wrong(f"{name!r} names no alias; one is NAME@ALIAS.", "NAME")
    found = model_of(config, name)
    found.remove_alias(alias)
    one(row(found), as_json=as_json)


def model_stage(
    name: Name,
    stage: Annotated[str, typer.Argument(help="Development, Staging, Production or Archived")],
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Say where a version stands on its way to users."""
    found = model_of(config, name)
    found.set_stage(stage)
    one(row(found), as_json=as_json)


def model_update(
    name: Name,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="NAME=VALUE to add or change; may be repeated")] = None,
    remove_tag: Annotated[list[str] | None, typer.Option("--remove-tag", help="name of a tag to take away; may be repeated")] = None,
    prop: Annotated[list[str] | None, typer.Option("--property", help="NAME=VALUE to add; may be repeated")] = None,
    description: Annotated[str | None, typer.Option(help="free text in place of what is there")] = None,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Change what is said of a version; its files never change."""
    found = model_of(config, name)
    fields: dict[str, Any] = {
        "tags": pairs(tag, "--tag", bare=True),
        "remove_tags": remove_tag or [],
        "properties": pairs(prop, "--property"),
    }
    if description is not None:
        fields["description"] = description
    found._update(**fields)
    one(row(found), as_json=as_json)


def model_delete(
    name: Annotated[str, typer.Argument(help="NAME:VERSION or NAME@ALIAS")],
    with_aliases: Annotated[bool, typer.Option("--with-aliases", help="aliases that point at it go with it")] = False,
    yes: Yes = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Delete a version. Refused while an endpoint serves it; its number is never given again."""
    if ":" not in name and "@" not in name:
        raise wrong(f"{name!r} names no version; a deletion is of NAME:VERSION or NAME@ALIAS.", "NAME")
    found = model_of(config, name)
    confirm(f"Delete the model version {found.id}?", yes)
    found.delete(with_aliases=with_aliases)
    one({"id": found.id, "deleted": True}, as_json=as_json)
