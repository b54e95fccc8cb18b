"""What a user can do about a failure, by its code: the message says what and where. Standard library only."""

from __future__ import annotations

_WHOLE_LOG = "the whole output, of each rank, is in azureml-logs/70_driver_log*.txt: run.get_details_with_logs()"
_BUILD_LOG = "the build's output is in azureml-logs/20_image_build_log.txt"
_SERVER_LOG = "its whole output: Webservice(ws, name).get_logs()"
_SUBMIT_AGAIN = "submit the run again"
_REGISTER_AGAIN = "register the model again from its files, and deploy the new version"
_OPERATOR = "who runs the platform finds the reason in the service's log; `make status` says what is up"

# By what they are about. Each code that a service gives is here, which a test sees to.
HINTS = {
    # requests
    "UserError": "change what the message names, and ask again",
    "AlreadyExists": "take another name, or ask for what is there",
    "Conflict": "another change was faster: look at what is there now, and ask again",
    "RequestTooLarge": "send less at a time: fewer files, tags or properties a call",
    "NotFound": "look at the spelling; `trainyard --help` names the lists of what there is",
    # runs
    "ScriptFailed": _WHOLE_LOG,
    "ScriptKilled": "signal 9 is most often memory: give the script less to hold, or choose a larger vm_size",
    "ScriptNotStarted": "is the program in the source folder or the environment, and may it be executed?",
    "TimedOut": "give max_run_duration_seconds more, or let the script save and resume",
    "RunFailed": "whoever opened the run closed it as failed; its own logs and warnings say more: run.get_details()",
    "RunNotFound": "experiment.get_runs() lists the runs there are",
    "RunNotEnded": "run.wait_for_completion(), then ask again",
    "AttemptIsOver": "let the script end: the attempt that follows, if one does, has the run to itself",
    "RunHasAgents": "run.cancel() ends it before its script does",
    "ParentFailed": "look at the parent run first: run.parent.get_details()",
    "ParentHasEnded": "open the child while its parent runs, or open it as a run of its own",
    "PropertyIsSet": "properties never change: give a tag for what changes, or another property",
    "PathIsTaken": "upload it under another path",
    "NeverFits": "ask for fewer nodes or less of each, or take a compute target that is larger",
    "OutputsLost": "look whether the node's disk is full and the object store answers, and " + _SUBMIT_AGAIN,
    "LogNotFound": "run.get_file_names() has the logs there are; one that has only just begun comes in a moment",
    # nodes and pools
    "ComputeTargetNotFound": "ComputeTarget.list(ws) shows those there are; ComputeTarget.create(...) makes one",
    "InUse": "wait for the runs that use it, or cancel them, and ask again",
    "AgentNotFound": "compute_target.list_nodes() shows the nodes there are",
    "AgentLost": "look whether the script exhausts the node's memory or disk",
    "NodeError": "the node is at fault and not the script: " + _SUBMIT_AGAIN + "; the agent's log has the whole reason",
    "PoolDead": "who runs the platform looks why no node comes up; a pool can be made anew, or another taken",
    # environments and source
    "EnvironmentBuildFailed": _BUILD_LOG,
    "EnvironmentBuildTimedOut": "ask for fewer or smaller packages, or submit again: what was fetched is kept; " + _BUILD_LOG,
    "EnvironmentNotFound": "Environment.list(ws) shows those there are; environment.register(ws) adds one",
    "SnapshotMissing": "its source is no longer in the object store: submit or deploy again from the folder",
    "SnapshotCorrupt": "its source was changed in the object store: submit or deploy again from the folder",
    "SnapshotFetchFailed": "look whether the object store answers, and deploy again",
    "CheckpointMissing": "resume from an earlier checkpoint or run, or begin anew without resume_from",
    "CheckpointCorrupt": "resume from an earlier checkpoint or run, or begin anew without resume_from",
    # data
    "SourceUnreachable": "look whether the address is right and answers from this network, and ask again",
    "DatasetChanged": "register the changed source as a new version of the dataset",
    "DatasetNotFound": "Dataset.get_by_name takes a registered name; dataset.register(ws, name) adds one",
    # models
    "ModelNotFound": "Model.list(ws) shows those there are",
    "ModelPathNotFound": "run.get_file_names() has the paths that can be registered",
    "ModelRefused": "save the model again, with a released version of its framework, and register that",
    "ModelImmutable": "register a new version",
    "ModelInUse": "Webservice.list(ws) shows what is deployed; Webservice(ws, name).delete() takes it down",
    "ModelLeaving": "it is being deleted: wait a moment, then register anew or take another version",
    "AliasNotFound": "name a version, or give the alias to one first; Model.list(ws) shows both",
    "ArtifactMissing": "its file is no longer in the object store: register or upload it again",
    "ArtifactCorrupt": _REGISTER_AGAIN,
    # endpoints
    "EndpointNotFound": "Webservice.list(ws) shows those there are; Model.deploy(...) makes one",
    "EndpointDeleted": "deploy again",
    "NotASavedModel": "save it with tf.saved_model.save or as .tflite, or deploy it with an InferenceConfig",
    "ModelFetchFailed": "look whether the object store answers, and deploy again",
    "ModelLoadFailed": "load it with the framework version it is registered with; " + _SERVER_LOG,
    "ScoringScriptFailed": "call init() of the script where you can debug it, with AZUREML_MODEL_DIR set; " + _SERVER_LOG,
    "LoadTimedOut": "let init() do less, or give a smaller model; " + _SERVER_LOG,
    "ModelServerDied": "signal 9 is most often memory: give the deployment more; " + _SERVER_LOG,
    "CertificateKeyMissing": "deploy again with ssl_cert_pem_file and ssl_key_pem_file",
    "NothingToRollBack": "deploy the version that is wanted; service.roll_back() needs one that was live",
    "NothingToSplit": "deploy a second version beside the first; calls are split where the platform has a door",
    # services
    "Unavailable": "see `make status`; what was asked may be asked again under the same submission",
    "InternalError": _OPERATOR,
    "HistoryBehind": "the history is catching up: ask again in a moment",
    "AlreadyRebuilding": "wait for the one that goes on",
    "TooManySubscribers": "close a subscription that nobody reads",
}
