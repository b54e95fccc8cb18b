"""A script's words and inputs, from Azure's two ways to give them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainyard._dataset import FileDataset
from trainyard._dataset_input import DatasetConsumptionConfig
from trainyard._errors import UserErrorException
from trainyard._run import Run

# How a reference to data writes itself into arguments.
_REFERENCE = re.compile(r"\$AZUREML_DATAREFERENCE_([A-Za-z_][A-Za-z0-9_]*)\Z")


@dataclass
class Arguments:
    """argv as (is an input, text or input name), and the inputs by name."""

    words: list[tuple[bool, str]] = field(default_factory=list)
    inputs: dict[str, DatasetConsumptionConfig] = field(default_factory=dict)
    resumed_run: str = ""
    """Id of the run whose last checkpoint this one begins with."""
    # One reference given in two places is one input; it is kept here, so that its id stays its own.
    _made: dict[tuple[int, str], tuple[Any, Any]] = field(default_factory=dict)

    def add_input(self, value: Any, name: str) -> DatasetConsumptionConfig:
        """A dataset input, or a reference that can be made one under that name. Raises UserErrorException for anything else."""
        if isinstance(value, FileDataset):
            raise UserErrorException(
                f"{name}: a dataset is given as an input.", target=name, hint="write dataset.as_named_input('data').as_mount()"
            )
        if hasattr(value, "_to_input"):
            value = self._made.setdefault((id(value), name), (value, value._to_input(name)))[1]
        if not isinstance(value, DatasetConsumptionConfig):
            raise UserErrorException(f"{name}: {value!r} is no input; inputs are datasets and references to data.", target=name)
        there = self.inputs.setdefault(value.name, value)
        # A reference may stand in the arguments and in data_references, each time as an object of its own.
        if there != value and there._to_message() != value._to_message():
            raise UserErrorException(f"Two different inputs are named {value.name!r}.", target=value.name)
        return value

    def add(self, value: Any) -> None:
        """One word: text, a number, a dataset input or a reference to data."""
        if isinstance(value, FileDataset | DatasetConsumptionConfig) or hasattr(value, "_to_input"):
            name = getattr(value, "data_reference_name", None) or getattr(value, "name", None) or "input"
            self.words.append((True, self.add_input(value, name).name))
        elif value is None or isinstance(value, Mapping | list | tuple | set):
            raise UserErrorException(f"An argument is a text, a number or an input; {value!r} is none.", target=repr(value)[:200])
        else:
            self.words.append((False, str(value)))

    def add_all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.add(value)

    def add_resume(self, resume_from: Any) -> None:
        """Of a run its checkpoint, which the agents put in place; of a DataPath a folder as an input, and the script's `--resume-from`."""
        if isinstance(resume_from, Run):
            self.resumed_run = resume_from.id
            return
        if not hasattr(resume_from, "_to_input"):
            raise UserErrorException(
                f"resume_from takes an earlier run, or a DataPath of its outputs, not {resume_from!r}.",
                target="resume_from",
                hint="give the run, or run._get_outputs_datapath()",
            )
        self.add("--resume-from")
        self.words.append((True, self.add_input(resume_from, "resume_from").name))

    def resolved(self) -> list[tuple[bool, str]]:
        """The words, with references by name to inputs that are there made inputs."""
        found = []
        for is_input, text in self.words:
            match = None if is_input else _REFERENCE.match(text)
            found.append((True, match[1]) if match and match[1] in self.inputs else (is_input, text))
        return found


def is_input(value: Any) -> bool:
    """A dataset as an input, or a reference that can be made one."""
    return isinstance(value, DatasetConsumptionConfig) or hasattr(value, "_to_input")


def flatten(params: Mapping[str, Any]) -> Arguments:
    """script_params: flag -> value in order; '' or None makes a bare flag."""
    made = Arguments()
    for flag, value in params.items():
        made.add(flag)
        if not (value is None or (isinstance(value, str) and value == "")):
            if isinstance(value, FileDataset):
                made.add_input(value, str(flag))
            made.add(value)
    return made


def from_list(arguments: Sequence[Any] | None) -> Arguments:
    """ScriptRunConfig's arguments: words in order."""
    if isinstance(arguments, str):
        raise UserErrorException(
            f"arguments is a list of words, not the text {arguments[:100]!r}.", target="arguments", hint="write ['--a', 1]"
        )
    made = Arguments()
    made.add_all(arguments or ())
    return made
