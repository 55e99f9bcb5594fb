"""The keys of a GGUF file that say how large its transformer is: for whoever writes one, here or in a script."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf import GGUFWriter


def add_shape(writer: "GGUFWriter", *, context: int, width: int, ffn: int, layers: int, heads: int) -> None:
    """Write what every transformer has: positions, widths of a token and of the feed-forward part, layers and heads."""
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(ffn)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
