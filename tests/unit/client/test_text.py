import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard._text import json_safe, plain, plain_lines, shown_line

UNSAFE = {chr(number) for number in (*range(9), *range(10, 32), *range(127, 160))} | set("\u202e\u2028\u2066\ufeff")


@given(st.text())
def test_no_text_keeps_a_character_that_a_terminal_would_obey(text: str) -> None:
    assert not UNSAFE & set(plain(text))
    assert not UNSAFE & set(shown_line(text))
    assert not UNSAFE & set(plain_lines(text).replace("\n", ""))


@given(st.text())
def test_json_made_safe_reads_as_the_same_value(text: str) -> None:
    safe = json_safe(json.dumps({"text": text}, ensure_ascii=False))

    assert not UNSAFE & set(safe)
    assert json.loads(safe) == {"text": text}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("10%\r50%\r100%", "100%"),
        ("epoch 1\x08\x08\x08\x08\x08done 1", "epdone 1"),
        ("\x1b]0;title\x07x", "\\x1b]0;title\\x07x"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("naïve\tцифры 日本", "naïve\tцифры 日本"),
        ("windows line\r", "windows line"),
    ],
)
def test_a_programs_line_is_shown_as_a_terminal_would_leave_it(text: str, shown: str) -> None:
    assert shown_line(text) == shown
