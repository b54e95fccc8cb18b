"""Where models lie: in folders of this machine, or in an object store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

from services.serving.model_server.config_files import BadConfig
from services.serving.model_server.folders import Fingerprint, found_versions
from services.serving.model_server.object_store import Mirror, Store, StoreAway, is_remote, parsed
from services.serving.model_server.versions import ModelConfig


class Sources:
    def __init__(self, cache: Path, store: Callable[[], Store]) -> None:
        """`store` is called once, at the first model that lies in one; it raises BadConfig."""
        self._cache = cache
        self._store = store

    @cached_property
    def _mirror(self) -> Mirror:
        return Mirror(self._store(), self._cache)

    def check(self, configs: Sequence[ModelConfig]) -> None:
        """Raises BadConfig where one of them cannot even be looked for."""
        for config in configs:
            if not config.fixed and is_remote(config.base_path):
                parsed(config.base_path)
                _ = self._mirror

    def versions(self, config: ModelConfig) -> dict[int, tuple[str, Fingerprint]]:
        """Path and fingerprint by version. Raises OSError."""
        if config.fixed or not is_remote(config.base_path):
            return found_versions(config)
        try:
            return self._mirror.versions(config.base_path)
        except BadConfig as error:
            raise StoreAway(str(error)) from error

    def held(self, path: str) -> AbstractContextManager[Path]:
        """The folder of a version, all of it here, which stays for so long. Raises OSError as it is entered."""
        return self._mirror.held(path) if is_remote(path) else nullcontext(Path(path))
