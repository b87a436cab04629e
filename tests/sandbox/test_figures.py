"""Plots become files, and Chinese in them has a font."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from tests.sandbox.running import Box, RunningSandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What has no glyph is drawn as a box: two characters then look the same.
DRAWN = """
import matplotlib.pyplot as plt
{before}
def drawn(text):
    figure = plt.figure()
    figure.text(0.1, 0.5, {text}, {options})
    figure.canvas.draw()
    pixels = bytes(figure.canvas.buffer_rgba())
    plt.close(figure)
    return pixels
print(len({{drawn(character) for character in "高低汉字"}}))
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(any_service: RunningSandbox) -> AsyncGenerator[Box]:
    """Importing matplotlib takes its time."""
    made = await Box(any_service).open()
    yield made
    await made.close()


@pytest.mark.parametrize(
    ("before", "text", "options"),
    [
        ("", "text", ""),
        ("plt.rcParams['font.sans-serif'] = ['SimHei']", "text", ""),
        ("plt.rcParams['font.family'] = 'Microsoft YaHei'; plt.rcParams['axes.unicode_minus'] = False", "text", ""),
        ("plt.style.use('seaborn-v0_8')", "text", ""),
        ("import seaborn; seaborn.set_theme(font='Times New Roman')", "text", "fontweight='bold'"),
        (
            "from matplotlib.font_manager import FontProperties as F",
            "text",
            "fontproperties=F(fname='C:/Windows/Fonts/simhei.ttf')",
        ),
        ("", "text + ' $x^2$'", ""),
    ],
)
async def test_chinese_is_drawn_however_fonts_are_set(box: Box, before: str, text: str, options: str) -> None:
    assert (await box.run(DRAWN.format(before=before, text=text, options=options))).logs == "4\n"


@pytest.mark.parametrize(
    "code",
    [
        "plt.plot([1, 2]); plt.show()",
        "plt.plot([1, 2]); None",
        "plt.plot([1, 2]); import sys; sys.exit()",
        "fig, ax = plt.subplots(); fig.show()",
        "fig = plt.figure(); display(fig); None",
        "import matplotlib; matplotlib.use('TkAgg'); plt.plot([1]); plt.show()",
        "import seaborn; seaborn.lineplot(x=[1, 2], y=[1, 2]); plt.show()",
        "from PIL import Image; display(Image.new('RGB', (8, 8)))",
    ],
)
async def test_a_figure_becomes_one_file(box: Box, code: str) -> None:
    result = await box.run(f"import matplotlib.pyplot as plt\n{code}")

    assert [file.path.rpartition("/")[2].rpartition("-")[0] for file in result.files] in (["plot"], ["image"])


async def test_a_figure_is_saved_after_an_exception_too(box: Box) -> None:
    result = await box.run("import matplotlib.pyplot as plt\nplt.plot([1])\n1 / 0")

    assert "ZeroDivisionError" in result.logs
    assert len(result.files) == 1


async def test_a_figure_that_cannot_be_drawn_is_told_once(box: Box) -> None:
    broken = await box.run("import matplotlib.pyplot as plt\nplt.title(r'$\\nosuchthing$'); None")

    assert broken.logs.startswith("[A figure could not be drawn: ValueError: ")
    assert (await box.run("1")).logs == "1\n"


async def test_characters_without_a_font_are_told_once(box: Box) -> None:
    logs = (await box.run("import matplotlib.pyplot as plt\nplt.title('ภาษาไทย'); plt.plot([1]); plt.show()")).logs

    assert logs == "[No font here has some of the characters of the figure; they are drawn as boxes.]\n"


async def test_the_font_is_named_to_code_that_wants_a_file(box: Box) -> None:
    logs = (await box.run("from PIL import ImageFont\nImageFont.truetype('simhei.ttf', 20)")).logs
    hint = logs.splitlines()[-1]

    assert hint.startswith("[A font with Chinese is at ")
    path = hint.removeprefix("[A font with Chinese is at ").removesuffix("]")
    made = await box.run(
        f"from reportlab.pdfbase import pdfmetrics, ttfonts\npdfmetrics.registerFont(ttfonts.TTFont('cn', {path!r}))\n"
        f"ImageFont.truetype({path!r}, 20).getbbox('中文')[2]"
    )
    assert made.logs == "40\n"
