"""Packages that conda and pip's index both have: which is which. What is not here is never guessed."""

from __future__ import annotations

_SAME = """
absl-py beautifulsoup4 bokeh boto3 certifi click cloudpickle cryptography cython dask dill filelock flask fsspec future
gensim graphviz grpcio h5py horovod hyperopt idna imageio imbalanced-learn ipykernel ipython jinja2 joblib jsonschema
jupyter keras keras-applications keras-preprocessing lightgbm lxml markdown markupsafe matplotlib mlflow msgpack
networkx nltk notebook numba numexpr numpy onnx onnxruntime openpyxl optuna packaging pandas pathspec patsy pillow pip
plotly protobuf psutil psycopg2-binary py4j pyarrow pydantic pydot pyparsing pytest python-dateutil pytz pyyaml pyzmq
regex requests rich ruamel.yaml s3fs scikit-image scikit-learn scipy seaborn sentencepiece setuptools shap six spacy
sqlalchemy statsmodels sympy tabulate tensorboard tensorflow-datasets tensorflow-hub tensorflow-probability termcolor
tokenizers toolz tornado tqdm transformers typing-extensions tzdata ujson urllib3 werkzeug wheel wrapt xarray xgboost
xlrd zstandard
"""
SAME_NAME = frozenset(_SAME.split())
"""Those that are called the same."""

OTHER_NAME = {
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "psycopg2": "psycopg2-binary",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "python-graphviz": "graphviz",
    "pytorch": "torch",
    "tensorflow": "tensorflow",
    "tensorflow-base": "tensorflow",
    "tensorflow-cpu": "tensorflow",
    "tensorflow-estimator": "tensorflow-estimator",
    "tensorflow-gpu": "tensorflow-gpu",
}
"""conda's name -> pip's."""
