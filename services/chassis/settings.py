"""Settings of every service: one prefix (TRAINYARD_), one file (settings.toml, named by TRAINYARD_SETTINGS), the environment over it.

Nested names take two underscores in the environment: TRAINYARD_SCHEDULER__LOST_AFTER_SECONDS=5.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from services.graph_operations import REACHING_OUT
from trainyard._environment_cache import default_cache

FILE = "TRAINYARD_SETTINGS"


class ObjectStore(BaseModel):
    """Where models, snapshots and outputs lie. The keys come by environment, and only to services that need them."""

    endpoint: str = "127.0.0.1:17402"
    bucket: str = "trainyard"
    access_key: str = ""
    secret_key: SecretStr = SecretStr("")


class Scheduler(BaseModel):
    node_slots: int = Field(4, ge=0, description="nodes that the local provider may start on this machine, over all pools")
    supervisor_socket: str = Field("", description="Unix socket of the supervisor that starts agents; empty: none are started")
    suspect_after_seconds: float = Field(5.0, gt=0, description="silence after which a run shows NotResponding")
    lost_after_seconds: float = Field(12.0, gt=0, description="silence after which an agent's attempts are lost")
    offer_seconds: float = Field(30.0, gt=0, description="an offer that nobody took is withdrawn after so long, counted in pulses")
    gang_seconds: float = Field(
        1800.0,
        gt=0,
        description="an attempt is lost where part of its gang is not prepared after so long, counted in pulses; one node has all the time it needs",
    )
    elastic_seconds: float = Field(600.0, gt=0, description="an elastic gang with too few nodes is given up after so long")
    max_lost_attempts: int = Field(5, ge=1, description="a run that lost so many attempts that had begun fails")
    pool_dead_seconds: float = Field(
        600.0, gt=0, description="a pool of which no node has come up for so long fails the runs that wait for it; counted in pulses"
    )
    agent_settings: str = Field("", description="file with the settings of agents that run in containers, object store keys included")
    docker_socket: str = Field("/var/run/docker.sock", description="Unix socket of the Docker engine of pools with that provider")
    pulse_seconds: float = Field(1.0, gt=0, description="how often the scheduler looks at its clock")


class Agent(BaseModel):
    id: str = Field("", description="stable name of the node, e.g. agent-0")
    pool: str = Field("", description="that the node joins by hand; empty: a pool that starts its nodes itself has started it")
    address: str = Field("", description="where other nodes reach its ranks; empty: host")
    labels: dict[str, str] = Field(default_factory=dict, description="of the node, for runs that ask for some")
    fake_gpus: str = Field("", description="GPUs to tell of instead of the driver's, for tests: 2xNVIDIA H100, or a JSON list")
    heartbeat_seconds: float = Field(1.0, gt=0)
    grace_seconds: float = Field(5.0, ge=0, description="between TERM and KILL")
    checkpoint_seconds: float = Field(10.0, gt=0, description="between two looks at what a script has saved, for runs that begin again")
    build_seconds: float = Field(1800.0, gt=0, description="deadline of an environment build")
    cache_bytes: int = Field(50_000_000_000, ge=0, description="what the node's cache of data and snapshots may hold; 0: no bound")


class Registry(BaseModel):
    operations: list[str] = Field(
        sorted(REACHING_OUT),
        description="operations that read or write files or run Python; a version whose graph has one says so, and no endpoint takes it",
    )


class Serving(BaseModel):
    load_seconds: float = Field(600.0, gt=0, description="deadline from the start of a model server to its first answer")
    door_grpc_port: int = Field(0, ge=0, le=65535, description="gRPC of all models by name; 0, or no door_rest_port: there is no such door")
    door_rest_port: int = Field(0, ge=0, le=65535, description="REST of all models by name")
    memory_budget_bytes: int = Field(
        0,
        ge=0,
        description="what all servers of endpoints may take together; beyond it those that were called longest ago sleep; 0: no bound",
    )
    least_awake_seconds: float = Field(30.0, ge=0, description="for so long no endpoint is put to sleep to make room for others")
    orphan_seconds: float = Field(
        900.0, gt=0, description="so long servers and door go on after their service was killed; without another one they end then"
    )
    key_secret: SecretStr = Field(
        SecretStr(""), description="what the keys of endpoints are made from; empty: a file in home, made at the first start"
    )


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TRAINYARD_", env_nested_delimiter="__", extra="ignore")

    service: str
    home: Path = Path(".trainyard")
    cache: Path = Field(default_factory=default_cache)
    kafka_bootstrap: str = "127.0.0.1:17400"
    host: str = Field("127.0.0.1", description="address that every port is bound to")
    port: int = Field(0, ge=0, le=65535, description="gRPC port; 0: any free one")
    loop: Literal["faust", "kafka"] = Field("faust", description="who delivers records")
    database_url: str = Field("", description="SQLAlchemy URL; empty: a SQLite file in home")
    stall_seconds: float = Field(30.0, gt=0, description="no progress for so long while records wait ends the process")
    log_json: bool = False
    object_store: ObjectStore = Field(default_factory=ObjectStore)
    scheduler: Scheduler = Field(default_factory=lambda: Scheduler())
    agent: Agent = Field(default_factory=lambda: Agent())
    registry: Registry = Field(default_factory=lambda: Registry())
    serving: Serving = Field(default_factory=lambda: Serving())

    @model_validator(mode="after")
    def _who_sleeps_can_be_woken(self) -> Self:
        has_door = self.port and self.serving.door_grpc_port and self.serving.door_rest_port
        if self.service == "serving" and self.serving.memory_budget_bytes and not has_door:
            raise ValueError(
                "serving.memory_budget_bytes puts endpoints to sleep, which the door wakes: set port, serving.door_grpc_port and "
                "serving.door_rest_port, or no budget"
            )
        return self

    @classmethod
    def load(cls, service: str, **overrides: Any) -> Settings:
        """Raises pydantic.ValidationError, which names the setting at fault, FileNotFoundError where the named file is not, and
        ValueError where it is no TOML."""
        named = os.environ.get(FILE)
        if named and not Path(named).is_file():
            raise FileNotFoundError(f"{FILE} names {named}, which is no file: make it, or unset {FILE}")
        try:
            return cls(service=service, **overrides)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{FILE} names {named}, which is no TOML: {error}") from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        named = os.environ.get(FILE)
        file = (TomlConfigSettingsSource(settings_cls, Path(named)),) if named else ()
        return (init_settings, env_settings, *file)

    @property
    def sql_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home.resolve() / 'db' / f'{self.service}.db'}"
