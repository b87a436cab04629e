"""Workbooks: numbers as they are shown, formulas without a value, and sheets with a stray cell far away."""

from __future__ import annotations

import datetime
from typing import Any

import openpyxl  # pyright: ignore[reportMissingModuleSource] - ships no types
import pytest

from app.documents import reading
from tests.documents.making import part, saved, with_part

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def read(workbook: Any) -> list[list[str]]:
    """The rows of the only sheet."""
    said = await reading.text(saved(workbook), filename="a.xlsx")
    rows = [line for line in said.split("\n") if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in rows]


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (123, "00000", "00123"),
        (0.125, "0.0%", "12.5%"),
        (0.125, "0.0 %", "12.5 %"),
        (0.12, "0%", "12%"),
        (datetime.timedelta(hours=30), "[h]:mm", "30:00:00"),
        (datetime.date(2026, 1, 2), 'yyyy"年"m"月"d"日"', "2026-01-02"),
        (1234.5, "#,##0.00", "1,234.50"),
        (-1234.5, "#,##0.00;[Red](#,##0.00)", "(1,234.50)"),
        (1234567, '0.0,,"M"', "1.2M"),
        (0, '#,##0;-#,##0;"-"', "-"),
        (1234.5, "[$¥-804]#,##0.00", "¥1,234.50"),
        (13800138000, "000-0000-0000", "138-0013-8000"),
        (5, '"第"0"名"', "第5名"),
        (2.5, "0", "3"),
        (-0.001, "0.00", "0.00"),
        (7, ";;;", "7"),
        (7, "# ?/?", "7"),
        (13800138000, "General", "13800138000"),
        (0.1 + 0.2, "General", "0.3"),
        ("00123", "@", "00123"),
    ],
)
async def test_a_number_is_shown_by_its_format(value: object, code: str, shown: str) -> None:
    workbook: Any = openpyxl.Workbook()
    workbook.active["A1"] = value
    workbook.active["A1"].number_format = code
    assert await read(workbook) == [[shown]]


async def test_a_formula_that_was_never_calculated_is_shown_itself() -> None:
    workbook: Any = openpyxl.Workbook()
    workbook.active.append(["price", "total"])
    workbook.active.append([3, "=A2*12"])
    assert await read(workbook) == [["price", "total"], ["3", "=A2*12"]]


async def test_formulas_that_a_column_shares_are_shown_for_each_row() -> None:
    workbook: Any = openpyxl.Workbook()
    for row in (1, 2, 3):
        workbook.active.append([row, f"=A{row}*2"])
    content, name = saved(workbook), "xl/worksheets/sheet1.xml"
    sheet = part(content, name).replace(b"<f>A1*2</f>", b'<f t="shared" ref="B1:B3" si="0">A1*2</f>')
    for row in (b"2", b"3"):
        sheet = sheet.replace(b"<f>A" + row + b"*2</f>", b'<f t="shared" si="0"/>')
    said = await reading.text(with_part(content, name, sheet), filename="a.xlsx")
    assert "| 3 | =A3*2 |" in said


async def test_a_stray_cell_far_away_hides_nothing() -> None:
    workbook: Any = openpyxl.Workbook()
    sheet = workbook.active
    sheet["A1"], sheet["C2"], sheet["XFD1048576"] = "first", True, "far"
    for row in range(1, 100):
        sheet.cell(row * 10_000, 16_000, f"at {row}")
    said = await read(workbook)
    assert said[0] == ["first", "", "", ""]
    assert said[1] == ["", "TRUE", "", ""]
    assert said[-1] == ["", "", "", "far"]
    assert [row[2] for row in said[2:-1]] == [f"at {row}" for row in range(1, 100)]


async def test_a_merged_head_keeps_the_columns_below_it() -> None:
    workbook: Any = openpyxl.Workbook()
    workbook.active.append(["both", None, "single"])
    workbook.active.merge_cells("A1:B1")
    workbook.active.append([1, 2, 3])
    assert await read(workbook) == [["both", "", "single"], ["1", "2", "3"]]


async def test_strict_and_macro_workbooks_are_read() -> None:
    workbook: Any = openpyxl.Workbook()
    workbook.active["A1"] = 123
    workbook.active["A1"].number_format = "00000"
    content = saved(workbook)
    main = b"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    macros = with_part(
        content,
        "[Content_Types].xml",
        part(content, "[Content_Types].xml").replace(main, b"application/vnd.ms-excel.sheet.macroEnabled.main+xml"),
    )
    assert "| 00123 |" in await reading.text(macros, filename="a.xlsm")
    for name in ("xl/workbook.xml", "xl/styles.xml", "xl/worksheets/sheet1.xml"):
        old, new = (
            b"http://schemas.openxmlformats.org/spreadsheetml/2006/main",
            b"http://purl.oclc.org/ooxml/spreadsheetml/main",
        )
        content = with_part(content, name, part(content, name).replace(old, new))
    assert "| 00123 |" in await reading.text(content, filename="strict.xlsx")
