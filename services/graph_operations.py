"""Operations of TensorFlow that reach out of the graph: to files, to the network, to Python, or to the process itself. The registry looks for
them when a model is registered, the model server when it loads one. Standard library alone: the model server runs where nothing else is.

Gone through by hand were all 1,908 operations of TensorFlow 2.21 and the 1,862 of 2.15: their attributes and inputs of type string, and those
that TensorFlow declares to have no state although they reach out. What fills a table from a file or restores variables is not here: that file
may come with the model, and the model server follows it.
"""

from __future__ import annotations

_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc", "GeneratorDataset")
_READING = (
    "ReadFile", "MatchingFiles", "MatchingFilesDataset", "ImmutableConst", "GenerateVocabRemapping", "LoadAndRemapMatrix", "RecordInput",
    "Skipgram", "FixedUnigramCandidateSampler", "LoadDataset", "ListSnapshotChunksDataset", "SnapshotChunkDataset",
    "SnapshotDatasetReader", "LMDBDataset", "TFRecordDataset", "TFRecordDatasetV2", "TextLineDataset", "FixedLengthRecordDataset",
    "FixedLengthRecordDatasetV2", "CSVDataset", "CSVDatasetV2", "SqlDataset", "ExperimentalCSVDataset", "ExperimentalLMDBDataset",
    "ExperimentalMatchingFilesDataset", "ExperimentalSqlDataset", "WholeFileReader", "WholeFileReaderV2", "TextLineReader",
    "TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2", "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "LMDBReader",
    "ReaderRead", "ReaderReadV2", "ReaderReadUpTo", "ReaderReadUpToV2", "ReaderReset", "ReaderResetV2", "ReaderRestoreState",
    "ReaderRestoreStateV2", "ReaderSerializeState", "ReaderSerializeStateV2", "ReaderNumRecordsProduced", "ReaderNumRecordsProducedV2",
    "ReaderNumWorkUnitsCompleted", "ReaderNumWorkUnitsCompletedV2",
    # Their descriptor_source may be the path of a file.
    "DecodeProtoV2", "EncodeProto",
)  # fmt: skip
_WRITING = (
    "WriteFile", "MergeV2Checkpoints", "SaveDataset", "SaveDatasetV2", "DistributedSave", "SnapshotDataset", "SnapshotDatasetV2",
    "CacheDataset", "CacheDatasetV2", "DatasetToTFRecord", "ExperimentalDatasetToTFRecord", "CreateSummaryFileWriter",
    "CreateSummaryDbWriter", "DumpTensor", "CalibrationStatisticsSaver",
    # Their debug_urls are files to write or servers to send to, their output_stream may be a file.
    "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount", "DebugNumericSummary", "PrintV2",
)  # fmt: skip
_NETWORK = (
    "RemoteCall", "RpcServer", "RpcServerStart", "RpcServerRegister", "RpcClient", "RpcCall", "RpcCheckStatus", "RpcGetValue",
    "DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3", "DataServiceDatasetV4", "RegisterDataset", "RegisterDatasetV2",
    "FileSystemSetConfiguration",
)  # fmt: skip
# The end of the process, the debugger's watch, and programs of other kinds, of which nobody can say what they do.
_PROCESS = ("Abort", "Copy", "CopyHost", "XlaCustomCall", "XlaCustomCallV2", "MlirPassthroughOp")
REACHING_OUT = frozenset((*_PYTHON, *_READING, *_WRITING, *_NETWORK, *_PROCESS))
