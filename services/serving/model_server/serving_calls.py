"""TensorFlow Serving's calls on messages, the same for gRPC and REST: what is meant, what it answers, and how its errors are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from services.serving.model_server import config_files, examples, tensors
from services.serving.model_server.errors import NOT_FOUND, ServeError, invalid
from services.serving.model_server.served import Models, Served
from services.serving.model_server.signatures import DEFAULT_SIGNATURE
from services.serving.model_server.versions import ModelConfig
from services.serving.model_server.wire import Wire

_PREDICTABLE = (examples.PREDICT, examples.CLASSIFY, examples.REGRESS)


class ManagedModels(Models, Protocol):
    """What TensorFlow Serving's API asks beyond the contract of all fronts."""

    def version_of(self, name: str, label: str) -> int: ...
    def reload(self, configs: Sequence[ModelConfig], deadline: float | None = None) -> None: ...


class Calls:
    """Each takes a request message and a deadline by time.monotonic(), and gives the response message. Raises ServeError."""

    def __init__(self, models: ManagedModels, wire: Wire, *, check_method: bool = True, as_content: bool = False) -> None:
        self._models = models
        self._wire = wire
        self._check_method = check_method
        self._fill = tensors.fill_content if as_content else tensors.fill

    def predict(self, request: Any, deadline: float | None) -> Any:
        spec = request.model_spec
        with self._models.borrow(spec.name, _version(spec), spec.version_label) as model:
            signature = model.signature(spec.signature_name)
            if self._check_method and signature.method not in _PREDICTABLE:
                raise invalid(
                    f"Expected prediction signature method_name to be one of {{{', '.join(_PREDICTABLE)}}}. Was: {signature.method}"
                )
            inputs = {alias: tensors.to_array(request.inputs[alias], alias) for alias in request.inputs}
            results = model.predict(signature, inputs, request.output_filter, deadline)
            response = self._wire.PredictResponse()
            examples.answered_by(response.model_spec, model, signature.name)
            for alias, array in results.items():
                self._fill(response.outputs[alias], signature.outputs[alias].dtype, array)
            return response

    def classify(self, request: Any, deadline: float | None) -> Any:
        spec = _spec(request)
        with self._models.borrow(spec.name, _version(spec), spec.version_label) as model:
            result = examples.classify(model, spec.signature_name, request.input, self._wire, deadline, check_method=self._check_method)
            return self._answered(self._wire.ClassificationResponse(result=result), model, spec)

    def regress(self, request: Any, deadline: float | None) -> Any:
        spec = _spec(request)
        with self._models.borrow(spec.name, _version(spec), spec.version_label) as model:
            result = examples.regress(model, spec.signature_name, request.input, self._wire, deadline, check_method=self._check_method)
            return self._answered(self._wire.RegressionResponse(result=result), model, spec)

    def multi_inference(self, request: Any, deadline: float | None) -> Any:
        if not request.tasks:
            raise invalid("a MultiInferenceRequest has at least one task")
        spec = request.tasks[0].model_spec
        with self._models.borrow(spec.name, _version(spec), spec.version_label) as model:
            return examples.infer(model, request, self._wire, deadline, check_method=self._check_method)

    def metadata(self, request: Any, _: float | None = None) -> Any:
        spec = _spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        with self._models.borrow(spec.name, _version(spec), spec.version_label) as model:
            response = self._wire.GetModelMetadataResponse()
            response.model_spec.name = model.name
            response.model_spec.version.value = model.version
            response.metadata["signature_def"].Pack(self._signatures(model))
            return response

    def _signatures(self, model: Served) -> Any:
        """As TensorFlow has them, where the model knows: those too that cannot be served."""
        made = self._wire.SignatureDefMap()
        known: Mapping[str, bytes] = getattr(model, "signature_defs", dict)()
        for name, definition in known.items():
            made.signature_def[name].MergeFromString(definition)
        if not known:
            for name, signature in model.signatures.items():
                definition = made.signature_def[name]
                definition.method_name = signature.method
                for infos, items in ((definition.inputs, signature.inputs), (definition.outputs, signature.outputs)):
                    for alias, tensor in items.items():
                        info = infos[alias]
                        info.name, info.dtype = tensor.name, tensor.dtype
                        info.tensor_shape.unknown_rank = tensor.shape is None
                        for size in tensor.shape or ():
                            info.tensor_shape.dim.add(size=size)
        return made

    def status(self, request: Any, _: float | None = None) -> Any:
        spec = _spec(request)
        version = _version(spec)
        if spec.version_label:
            version = self._models.version_of(spec.name, spec.version_label)
        response = self._wire.GetModelStatusResponse()
        try:
            known = self._models.versions(spec.name)
        except ServeError:
            known = []
        for standing in known:
            if version in (None, standing.version):
                response.model_version_status.add(
                    version=standing.version,
                    state=int(standing.state),
                    status={"error_code": standing.code, "error_message": standing.message},
                )
        if not response.model_version_status:
            if version is not None:
                raise ServeError(NOT_FOUND, f"Could not find version {version} of model {spec.name}")
            raise ServeError(NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return response

    def reload(self, request: Any, deadline: float | None) -> Any:
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid("ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported")
        self._models.reload(config_files.model_list(request.config, "the request"), deadline)
        return self._wire.ReloadConfigResponse(status={})

    def _answered(self, response: Any, model: Served, spec: Any) -> Any:
        examples.answered_by(response.model_spec, model, spec.signature_name or DEFAULT_SIGNATURE)
        return response


def _spec(request: Any) -> Any:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    return request.model_spec


def _version(spec: Any) -> int | None:
    return int(spec.version.value) if spec.WhichOneof("version_choice") == "version" else None
