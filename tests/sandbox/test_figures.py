"""Chinese in plots, where the machine has a font for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.sandbox.running import ROOT

FONT = """
import sys
from pathlib import Path
from fontTools.ttLib import TTFont
import matplotlib

font = TTFont(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
for name in font["name"].names:
    if name.nameID in (1, 4, 16):
        name.string = "WenQuanYi Micro Hei"
for table in font["cmap"].tables:
    if table.isUnicode():
        table.cmap[ord("高")] = "H"
font.save(sys.argv[1])
"""
PLOT = """
import sys, warnings
from app.sandbox.inside import figures

figures.watch(sys.argv[1])
import matplotlib.pyplot as plt

warnings.simplefilter("error")  # "Glyph … missing"
plt.title("Height 高")
plt.gcf().canvas.draw()
plt.rcParams["font.sans-serif"] = ["SimHei"]  # as code from the web begins
plt.title("Height 高")
plt.gcf().canvas.draw()
plt.show()
"""


def test_a_chinese_font_is_used_and_stands_in_for_those_of_other_systems(tmp_path: Path) -> None:
    fonts = tmp_path / ".fonts"
    fonts.mkdir()
    _python(tmp_path, FONT, str(fonts / "stand-in.ttf"))

    drawn = _python(tmp_path, PLOT, str(tmp_path))

    assert drawn.returncode == 0, drawn.stderr
    assert "SimHei" not in drawn.stderr  # matplotlib would say that it has no such font
    assert (tmp_path / "plot-1.png").read_bytes().startswith(b"\x89PNG")


def _python(home: Path, code: str, argument: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    return subprocess.run([sys.executable, "-c", code, argument], env=environment, capture_output=True, text=True, check=False, timeout=60)
