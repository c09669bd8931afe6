"""Move paddings to their readers.

y = Unsqueeze(Pad(x))  →  y = Pad(Unsqueeze(x)); likewise Transpose, Squeeze.

Next to a convolution the padding becomes the convolution's own edge, and costs no delay.
"""

from __future__ import annotations

from headrace.graph.prepare import Prepared


def sink_pads(prepared: Prepared) -> None:
    """Change the graph in place."""
