"""How commands name a model, and the line that they show of it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trainyard._cli import completion
from trainyard._cli.common import workspace

Name = Annotated[str, typer.Argument(help="the model's name, NAME:VERSION or NAME@ALIAS", autocompletion=completion.models)]


def model_of(config: str | None, text: str) -> Any:
    """Raises UserErrorException for what is neither NAME, NAME:VERSION nor NAME@ALIAS."""
    from trainyard._model import Model

    return Model(workspace(config), text)


def row(model: Any) -> dict[str, Any]:
    """The columns of a list."""
    shown = model.serialize()
    sizes: dict[str, int] = shown["files"]
    return {
        "id": model.id,
        "framework": " ".join(filter(None, (model.model_framework, model.model_framework_version))),
        "bytes": sum(sizes.values()),
        "createdTime": shown["createdTime"],
        "runId": model.run_id,
        "aliases": model.aliases,
        "stage": model.stage,
        "tags": model.tags,
        "description": model.description,
    }
