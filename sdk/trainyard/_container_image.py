"""The older way to name a scoring script, as Azure's code of 2019 has it. No image is built: the script runs as any other."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from trainyard._inference_config import InferenceConfig


class ContainerImage:
    """Only image_configuration is here: it makes what Webservice.deploy_from_model takes."""

    @staticmethod
    def image_configuration(
        execution_script: str,
        runtime: str = "python",
        conda_file: str | os.PathLike[str] | None = None,
        docker_file: str | None = None,
        schema_file: str | None = None,
        dependencies: Sequence[str | os.PathLike[str]] | None = None,
        enable_gpu: bool | None = None,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        base_image: str | None = None,
        base_image_registry: Any = None,
        cuda_version: str | None = None,
    ) -> InferenceConfig:
        """An InferenceConfig. dependencies: files and folders below the working directory that the script finds beside it, by the same
        relative paths. What concerns an image has no effect, and says so. Raises UserErrorException."""
        for option, value in (("docker_file", docker_file), ("schema_file", schema_file), ("tags", tags), ("properties", properties)):
            if value:
                warnings.warn(f"{option} has no effect: no image is built.", stacklevel=2)
        made = InferenceConfig(
            execution_script,
            runtime=runtime,
            conda_file=conda_file,
            enable_gpu=enable_gpu,
            description=description,
            base_image=base_image,
            base_image_registry=base_image_registry,
            cuda_version=cuda_version,
        )
        made._beside = tuple(os.fspath(it) for it in dependencies or ())
        return made
