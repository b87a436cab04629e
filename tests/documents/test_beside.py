"""What stands beside the text of an Office document: charts, diagrams, text boxes, comments, and files inside files."""

from __future__ import annotations

from typing import Any

import docx
import openpyxl  # pyright: ignore[reportMissingModuleSource] - ships no types
import pptx
import pytest
from openpyxl.comments import Comment  # pyright: ignore[reportMissingModuleSource] - as above
from pptx.chart.data import BubbleChartData, CategoryChartData, XyChartData
from pptx.enum.chart import XL_CHART_TYPE

from app.documents import reading
from tests.documents.making import part, saved, with_part

pytestmark = pytest.mark.asyncio(loop_scope="module")

_A = 'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main"'


def word(text: str = "text") -> bytes:
    """A Word document of one paragraph."""
    document = docx.Document()
    document.add_paragraph(text)
    return saved(document)


def chart(kind: XL_CHART_TYPE, data: Any, title: str = "") -> bytes:
    """A chart as Office writes it."""
    presentation = pptx.Presentation()
    slide: Any = presentation.slides.add_slide(presentation.slide_layouts[6])
    shown = slide.shapes.add_chart(kind, 0, 0, 100, 100, data).chart
    shown.has_title = bool(title)
    if title:
        shown.chart_title.text_frame.text = title
    content = saved(presentation)
    return part(content, str(shown.part.partname).removeprefix("/"))


async def test_a_chart_is_a_table_under_its_title() -> None:
    data: Any = CategoryChartData()
    data.categories = ["Q1", "Q2"]
    data.add_series("Sales", (1.5, 2.5))
    data.add_series("Costs", (1, None))
    content = with_part(word(), "word/charts/chart1.xml", chart(XL_CHART_TYPE.COLUMN_CLUSTERED, data, "营业额"))
    assert await reading.text(content, filename="a.docx") == (
        "text\n\n[Chart: 营业额]\n\n|  | Sales | Costs |\n| --- | --- | --- |\n| Q1 | 1.5 | 1 |\n| Q2 | 2.5 |  |"
    )


async def test_a_blank_point_of_a_chart_keeps_its_place() -> None:
    data: Any = CategoryChartData()
    data.categories = ["Jan", "Feb", "Mar"]
    data.add_series("Sales", (10, None, 30))
    content = with_part(word(), "word/charts/chart1.xml", chart(XL_CHART_TYPE.LINE, data))
    assert (await reading.text(content, filename="a.docx")).endswith("| Jan | 10 |\n| Feb |  |\n| Mar | 30 |")


async def test_scattered_points_and_bubbles_have_their_axes() -> None:
    points: Any = XyChartData()
    one, other = points.add_series("one"), points.add_series("other")
    one.add_data_point(1, 2.5)
    other.add_data_point(3, 4)
    content = with_part(word(), "word/charts/chart1.xml", chart(XL_CHART_TYPE.XY_SCATTER, points))
    assert (await reading.text(content, filename="a.docx")).endswith(
        "| one x | one y | other x | other y |\n| --- | --- | --- | --- |\n| 1 | 2.5 | 3 | 4 |"
    )
    bubbles: Any = BubbleChartData()
    bubbles.add_series("all").add_data_point(1, 2, 7)
    content = with_part(word(), "word/charts/chart1.xml", chart(XL_CHART_TYPE.BUBBLE, bubbles))
    assert (await reading.text(content, filename="a.docx")).endswith("| 1 | 2 | 7 |")


@pytest.mark.parametrize("names", [_A, 'xmlns:a="http://purl.oclc.org/ooxml/drawingml/main"'])
async def test_a_diagram_is_a_list(names: str) -> None:
    diagram = f"<d {names}><a:p><a:r><a:t>plan</a:t></a:r></a:p><a:p><a:r><a:t>do</a:t></a:r></a:p></d>"
    content = with_part(word(), "word/diagrams/data1.xml", diagram.encode())
    assert await reading.text(content, filename="a.docx") == "text\n\n[Diagram]\n- plan\n- do"


async def test_comments_and_text_boxes_of_a_sheet_are_read() -> None:
    workbook: Any = openpyxl.Workbook()
    workbook.active["B2"] = "value"
    workbook.active["B2"].comment = Comment("请核对", "Li")
    box = f"<w {_A} xmlns:x='x'><x:txBody><a:p><a:r><a:t>in a box</a:t></a:r></a:p></x:txBody></w>"
    content = with_part(saved(workbook), "xl/drawings/drawing1.xml", box.encode())
    said = await reading.text(content, filename="a.xlsx")
    assert "[Comment on B2] 请核对" in said
    assert "[Text box] in a box" in said


async def test_comments_on_slides_are_read() -> None:
    presentation = pptx.Presentation()
    slide: Any = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "plan"
    comment = "<p:cmLst xmlns:p='p'><p:cm><p:text>too long</p:text></p:cm></p:cmLst>"
    content = with_part(saved(presentation), "ppt/comments/comment1.xml", comment.encode())
    assert (await reading.text(content, filename="a.pptx")).endswith("## plan\n\n[Comment] too long")


async def test_files_inside_are_counted() -> None:
    content = with_part(word(), "word/embeddings/oleObject1.bin", b"x")
    content = with_part(content, "word/afchunk.mht", b"x")
    content = with_part(content, "word/embeddings/Microsoft_Excel_Sheet1.xlsx", b"the figures of a chart")
    assert (
        await reading.text(content, filename="a.docx")
        == "text\n\n[Not in this text: 1 embedded file; 1 inserted document]"
    )
