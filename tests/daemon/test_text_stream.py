"""Streaming text: whole characters, and no part of a stop string, however the bytes are cut."""

from hypothesis import given
from hypothesis import strategies as st

from familiar.daemon.llama import Model
from familiar.daemon.text_stream import TextStream


def streamed(pieces: list[bytes], stops: tuple[str, ...] = ()) -> list[str]:
    stream, texts = TextStream(stops), []
    for piece in pieces:
        texts.append(stream.push(piece))
        if stream.stopped:
            return texts
    return [*texts, stream.finish()]


def cut_at_first_stop(text: str, stops: tuple[str, ...]) -> str:
    """The definition, one character at a time: the text before the stop string that is complete first."""
    for end in range(len(text) + 1):
        found = [text[:end].removesuffix(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return min(found, key=len)
    return text


def test_a_character_split_over_tokens_comes_out_whole() -> None:
    pieces = [b"tea \xf0\x9f", b"\x8d", b"\xb5!"]
    assert streamed(pieces) == ["tea ", "", "🍵!", ""]


def test_a_character_that_never_ends_is_dropped() -> None:
    assert "".join(streamed([b"tea", b"\xf0\x9f\x8d"])) == "tea"


def test_text_waits_while_it_may_be_a_stop_string() -> None:
    assert streamed([b"one\n", b"\nU", b"ser: two"], ("\n\nUser:",)) == ["one", "", ""]
    assert streamed([b"one\n", b"\nU", b"nder"], ("\n\nUser:",)) == ["one", "", "\n\nUnder", ""]


@given(st.text(alphabet="ab🍵é", max_size=12), st.lists(st.text(alphabet="ab🍵", min_size=1, max_size=3)), st.data())
def test_the_text_does_not_depend_on_where_the_bytes_are_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert "".join(streamed(pieces, tuple(stops))) == cut_at_first_stop(text, tuple(stops))


def test_every_token_of_the_model_streams_back_to_the_text(model: Model) -> None:
    text = "Grüße, 世界! 🍵👩‍👩‍👧 naïve ﬁn\n\ttab"
    pieces = [model.vocab.piece(token) for token in model.vocab.tokenise(text)]
    assert any(len(piece.decode("utf-8", "ignore").encode()) < len(piece) for piece in pieces)  # some are split
    assert "".join(streamed(pieces)) == text
