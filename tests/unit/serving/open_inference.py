"""The answers that the published description of the Open Inference REST protocol promises, and whether one keeps the promise."""

from __future__ import annotations

from typing import Any

_TENSOR = {"name": str, "datatype": str, "shape": [int]}
# A name with ? may be missing; a list is one of any length with such members.
SERVER = {"name": str, "version": str, "extensions": [str]}
MODEL = {"name": str, "platform": str, "versions?": [str], "inputs?": [_TENSOR], "outputs?": [_TENSOR]}
INFERENCE = {
    "model_name": str,
    "model_version?": str,
    "id?": str,
    "parameters?": dict,
    "outputs": [{**_TENSOR, "parameters?": dict, "data": [object]}],
}
ERROR = {"error": str}


def conforms(value: Any, form: Any) -> bool:
    if isinstance(form, list):
        return isinstance(value, list) and all(conforms(item, form[0]) for item in value)
    if not isinstance(form, dict):
        return isinstance(value, form) and (form is not int or not isinstance(value, bool))
    names = {name.rstrip("?"): (name.endswith("?"), inner) for name, inner in form.items()}
    if not isinstance(value, dict) or not value.keys() <= names.keys():
        return False
    return all(conforms(value[name], inner) if name in value else optional for name, (optional, inner) in names.items())
