from deploy.docs_hooks import REPO, front_page, without_code


def test_the_front_page_leads_to_pages_of_the_site_and_elsewhere_not_at_all() -> None:
    readme = "[a](docs/cli.md) [b](docs/adr/) [c](examples/mnist/demo.py) [d](https://e.org/x) [e](#watch)"

    assert front_page(readme) == "[a](cli.md) b c [d](https://e.org/x) [e](#watch)"


def test_a_pages_links_to_code_become_text_and_links_to_pages_stay_even_broken_ones() -> None:
    page = "[a](architecture.md) [b](../services/chassis/engine.py) [c](missing.md#x) [d](adr/0001-x.md) [e](https://e.org)"

    assert without_code(page, REPO / "docs") == "[a](architecture.md) b [c](missing.md#x) [d](adr/0001-x.md) [e](https://e.org)"
