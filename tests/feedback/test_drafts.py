"""A draft's file is read back to what it was written from, whatever an editor does around its text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from familiar.feedback import drafts
from familiar.feedback.drafts import Draft

ID = "chatcmpl-0123456789abcdef01234567"


@given(st.text())
def test_what_was_written_is_read_back(reply: str) -> None:
    assert drafts.same(drafts.read(drafts.text_of(ID, reply), "any.md").body, reply)
    assert drafts.read(drafts.text_of(ID, reply), "any.md").completion_id == ID


@pytest.mark.parametrize(
    "text",
    [
        f"<!-- familiar draft {ID}: edit the text below -->\n\nDear Anna\n",
        f"<!-- familiar draft {ID}: edit -->\r\n\r\nDear Anna\r\n",
        f"\n\n  <!--familiar draft {ID}-->\nDear Anna",
        f"Dear Anna\n<!-- familiar draft {ID} -->\n",
    ],
)
def test_the_comment_is_found_wherever_it_stands(text: str) -> None:
    assert drafts.is_draft(text)
    assert drafts.read(text, "letter.md") == Draft(ID, "Dear Anna")


def test_without_the_comment_the_name_tells() -> None:
    name = drafts.file_name("Write an e-mail to Anna, please: the meeting is on Tuesday", ID)
    assert name == f"write-an-e-mail-to-anna-please-the-meeti.{ID}.md"
    assert drafts.read("Dear Anna", name) == Draft(ID, "Dear Anna")
    assert drafts.read("Dear Anna", f"Copy of {name}") == Draft(ID, "Dear Anna")
    assert drafts.read("Dear Anna", "letter.md") == Draft(None, "Dear Anna")
    assert drafts.file_name("¿?", ID) == f"draft.{ID}.md"


@pytest.mark.parametrize("body", ["Dear Anna,\nbye", "Dear Anna,  \nbye\t\n\n", "Dear Anna,\r\nbye"])
def test_spaces_at_the_ends_of_lines_are_no_edit(body: str) -> None:
    assert drafts.same(body, " Dear Anna,\nbye\n")


@pytest.mark.parametrize("body", ["Dear Ann,\nbye", "Dear Anna, bye", "Dear Anna,\n\nbye"])
def test_anything_else_is_an_edit(body: str) -> None:
    assert not drafts.same(body, "Dear Anna,\nbye")
