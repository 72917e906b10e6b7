"""Figures for papers, drawn by matplotlib: on the user's axes, and as SVG, PDF and PNG files.

Only those who draw a figure import this folder, and with it matplotlib. `pyplot` is never imported, so no
figure is kept, no backend is chosen and no setting of the user is changed.
"""

from relprop.errors import InputError

try:
    import matplotlib  # noqa: F401
except ImportError:
    raise InputError(
        "figures are drawn by matplotlib, which is not installed: pip install 'relprop[plot]'"
    ) from None
