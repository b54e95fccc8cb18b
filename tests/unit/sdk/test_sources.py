import pytest

from trainyard import Dataset
from trainyard._errors import UserErrorException
from trainyard._sources import mounted_path


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://127.0.0.1:17405/mnist/train.gz", "http/127.0.0.1:17405/mnist/train.gz"),
        ("https://data.example/a%20b/c.csv?version=3#top", "https/data.example/a b/c.csv"),
        ("HTTP://data.example//a", "http/data.example/a"),
        ("http://[::1]:80/a", "http/[::1]:80/a"),
    ],
)
def test_a_file_lies_below_scheme_host_and_path_of_its_url(url: str, path: str) -> None:
    assert mounted_path(url) == path
    assert Dataset.File.from_files(url).to_path() == [f"/{path}"]


def test_a_url_that_leads_out_of_the_mounted_folder_is_refused_when_the_dataset_is_made() -> None:
    with pytest.raises(UserErrorException) as error:
        Dataset.File.from_files("http://h/%2e%2e/%2e%2e/etc/passwd")

    assert error.value.target == "http://h/%2e%2e/%2e%2e/etc/passwd"


def test_a_password_in_a_url_is_refused_and_never_repeated() -> None:
    with pytest.raises(UserErrorException) as error:
        Dataset.File.from_files("http://me:secret@h/a")

    assert "secret" not in f"{error.value} {error.value.target}"
