"""Word documents: what stands outside the paragraphs, and the numbers that Word counts itself."""

from __future__ import annotations

from typing import Any

import docx
import pytest
from docx.oxml import parse_xml

from app.documents import reading
from tests.documents.making import part, saved, with_part, with_parts

pytestmark = pytest.mark.asyncio(loop_scope="module")

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_M = 'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
_BULLET = '<w:lvl w:ilvl="0"><w:numFmt w:val="bullet"/><w:lvlText w:val="&#8226;"/></w:lvl>'


def level(depth: int, text: str, form: str = "decimal", more: str = "") -> str:
    """A level of a list, as Word writes it."""
    return (
        f'<w:lvl w:ilvl="{depth}"><w:start w:val="1"/><w:numFmt w:val="{form}"/>{more}<w:lvlText '
        f'w:val="{text}"/></w:lvl>'
    )


def numbered(*lists: str) -> Any:
    """A document with these lists, whose numbers are 1, 2, 3."""
    document = docx.Document()
    numbering: Any = document.part.numbering_part.element
    for old in list(numbering):
        numbering.remove(old)
    for place, levels in enumerate(lists):
        numbering.append(parse_xml(f'<w:abstractNum {_W} w:abstractNumId="{place}">{levels}</w:abstractNum>'))
    for place in range(len(lists)):
        numbering.append(parse_xml(f'<w:num {_W} w:numId="{place + 1}"><w:abstractNumId w:val="{place}"/></w:num>'))
    return document


def item(document: Any, text: str, number: int, depth: int = 0) -> None:
    """A paragraph of a list."""
    properties = document.add_paragraph(text)._p.get_or_add_pPr()  # noqa: SLF001 - the library has no other way
    properties.append(parse_xml(f'<w:numPr {_W}><w:ilvl w:val="{depth}"/><w:numId w:val="{number}"/></w:numPr>'))


async def read(document: Any) -> list[str]:
    return (await reading.text(saved(document), filename="a.docx")).split("\n\n")


async def test_numbers_are_those_that_word_shows() -> None:
    document = numbered(
        level(0, "第%1条", "chineseCounting"), level(0, "%1.") + level(1, "%1.%2") + level(2, "(%3)", "lowerRoman")
    )
    item(document, "总则", 1)
    document.add_paragraph("between")
    item(document, "权利", 1)
    item(document, "义务", 1)
    for text, depth in (("a", 0), ("b", 0), ("b1", 1), ("b1i", 2), ("b1ii", 2), ("b2", 1), ("c", 0), ("c1", 1)):
        item(document, text, 2, depth)
    assert await read(document) == [
        *("第一条 总则", "between", "第二条 权利", "第三条 义务"),
        *("1. a", "2. b", "2.1 b1", "(i) b1i", "(ii) b1ii", "2.2 b2", "3. c", "3.1 c1"),
    ]


async def test_headings_are_numbered_by_their_styles() -> None:
    document = numbered(
        level(0, "第%1章", "chineseCounting", '<w:pStyle w:val="Heading1"/>')
        + level(1, "%1.%2", "decimal", '<w:pStyle w:val="Heading2"/><w:isLgl/>')
    )
    for name in ("Heading 1", "Heading 2"):
        document.styles[name].element.get_or_add_pPr().append(
            parse_xml(f'<w:numPr {_W}><w:numId w:val="1"/></w:numPr>')
        )
    for text, depth in (("总则", 1), ("目的", 2), ("范围", 2), ("权利", 1), ("甲方", 2)):
        document.add_heading(text, depth)
    assert await read(document) == ["# 第一章 总则", "## 1.1 目的", "## 1.2 范围", "# 第二章 权利", "## 2.1 甲方"]


async def test_a_list_may_begin_anew_and_bullets_stay_bullets() -> None:
    document = numbered(level(0, "%1)", "lowerLetter"), _BULLET)
    numbering: Any = document.part.numbering_part.element
    start = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="1"/></w:lvlOverride>'
    numbering.append(parse_xml(f'<w:num {_W} w:numId="9"><w:abstractNumId w:val="0"/>{start}</w:num>'))
    for text, number in (("one", 1), ("two", 1), ("anew", 9), ("next", 9), ("point", 2)):
        item(document, text, number)
    assert await read(document) == ["a) one", "b) two", "a) anew", "b) next", "- point"]


@pytest.mark.parametrize(
    ("form", "third", "twelfth"),
    [
        ("decimalZero", "03", "12"),
        ("upperRoman", "III", "XII"),
        ("upperLetter", "C", "L"),
        ("ordinal", "3rd", "12th"),
        ("chineseCountingThousand", "三", "十二"),
        ("chineseLegalSimplified", "叁", "壹拾贰"),
        ("ideographTraditional", "丙", "12"),
        ("decimalEnclosedCircle", "③", "⑫"),
        ("decimalFullWidth", "３", "１２"),
        ("ideographDigital", "三", "一二"),
        ("unheardOf", "3", "12"),
    ],
)
async def test_numerals_of_every_kind(form: str, third: str, twelfth: str) -> None:
    document = numbered(level(0, "<%1>".replace("<", "&lt;").replace(">", "&gt;"), form))
    for place in range(12):
        item(document, f"item {place}", 1)
    said = await read(document)
    assert said[2] == f"<{third}> item 2"
    assert said[11] == f"<{twelfth}> item 11"


async def test_notes_comments_headers_and_footers_are_read() -> None:
    document = docx.Document()
    document.sections[0].header.paragraphs[0].text = "Confidential"
    document.sections[0].footer.paragraphs[0].text = "ACME"
    document.add_comment(document.add_paragraph("claim").add_run(" here"), text="Is that so?", author="Li")
    paragraph: Any = document.add_paragraph("see")
    for kind in ("footnote", "endnote"):
        paragraph._p.append(parse_xml(f'<w:r {_W}><w:{kind}Reference w:id="2"/></w:r>'))  # noqa: SLF001 - the library has no other way
    notes = {
        kind: f'<w:{kind}s {_W}><w:{kind} w:id="2"><w:p><w:r><w:t>the {kind}</w:t></w:r></w:p></w:{kind}></w:{kind}s>'
        for kind in ("footnote", "endnote")
    }
    said = await reading.text(with_parts(saved(document), notes), filename="a.docx")
    for text in ("Header: Confidential", "Footer: ACME", "Is that so?", "the footnote", "the endnote"):
        assert text in said


async def test_equations_are_written_as_tex() -> None:
    fraction = (
        f"<m:oMath "
        f"{_M}><m:f><m:num><m:r><m:t>a</m:t></m:r></m:num><m:den><m:r><m:t>b</m:t></m:r></m:den></m:f></m:oMath>"
    )
    document = docx.Document()
    paragraph: Any = document.add_paragraph("half is ")
    paragraph._p.append(parse_xml(fraction))  # noqa: SLF001 - the library has no other way
    paragraph._p.append(parse_xml(f"<w:r {_W}><w:t> of it</w:t></w:r>"))  # noqa: SLF001 - as above
    document.add_paragraph("then")
    heading: Any = document.add_heading("About ", 1)
    heading._p.append(parse_xml(f"<m:oMath {_M}><m:r><m:t>x</m:t></m:r></m:oMath>"))  # noqa: SLF001 - as above
    assert await read(document) == [r"half is $\frac{a}{b}$ of it", "then", "# About x"]


@pytest.mark.parametrize("kind", ["docm", "dotx", "strict"])
async def test_macros_templates_and_strict_files_are_read(kind: str) -> None:
    document = numbered(level(0, "第%1条", "chineseCounting"))
    item(document, "总则", 1)
    content = saved(document)
    transitional = b"http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    main = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    changes = {
        "docm": {"[Content_Types].xml": (main, b"application/vnd.ms-word.document.macroEnabled.main+xml")},
        "dotx": {"[Content_Types].xml": (main, main.replace(b"document.main", b"template.main"))},
        "strict": {
            f"word/{name}.xml": (transitional, b"http://purl.oclc.org/ooxml/wordprocessingml/main")
            for name in ("document", "numbering", "styles")
        },
    }

    for name, (old, new) in changes[kind].items():
        content = with_part(content, name, part(content, name).replace(old, new))
    assert await reading.text(content, filename=f"a.{kind}") == "第一条 总则"


async def test_signs_line_ends_and_moved_text_are_read_as_shown() -> None:
    written = {
        '<w:r><w:sym w:font="Wingdings" w:char="F0FE"/></w:r><w:r><w:t> agreed</w:t></w:r>': "☑ agreed",
        '<w:r><w:sym w:font="Symbol" w:char="F061"/></w:r><w:r><w:t> = 1</w:t></w:r>': "α = 1",
        '<w:r><w:sym w:font="Webdings" w:char="F034"/></w:r><w:r><w:t> next</w:t></w:r>': "[Symbol] next",
        "<w:r><w:t>one</w:t><w:cr/><w:t>two</w:t></w:r>": "one two",
        '<w:moveFrom w:id="1" w:author="A"><w:r><w:t>away</w:t></w:r></w:moveFrom><w:r><w:t>stays</w:t></w:r>': "stays",
    }
    document: Any = docx.Document()
    for inner in written:
        document.element.body.insert(-1, parse_xml(f"<w:p {_W}>{inner}</w:p>"))
    assert [" ".join(block.split()) for block in await read(document)] == list(written.values())


async def test_a_list_level_that_no_list_has_does_no_harm() -> None:
    document = numbered(level(0, "%1."))
    item(document, "deep", 1, 999_999_999)
    item(document, "list of no name", 77)
    assert "deep" in await reading.text(saved(document), filename="a.docx")


async def test_what_is_entered_in_an_old_form_is_read() -> None:
    def field(inner: str) -> str:
        return (
            f'<w:r {_W}><w:fldChar w:fldCharType="begin"><w:ffData>{inner}</w:ffData></w:fldChar><w:fldChar '
            f'w:fldCharType="end"/></w:r>'
        )

    document = docx.Document()
    boxes = ['<w:checkBox><w:checked w:val="1"/></w:checkBox>', '<w:checkBox><w:default w:val="0"/></w:checkBox>']
    cities = '<w:ddList><w:result w:val="1"/><w:listEntry w:val="Hangzhou"/><w:listEntry w:val="Beijing"/></w:ddList>'
    for text, inner in (("yes ", boxes[0]), ("no ", boxes[1]), ("city ", cities)):
        paragraph: Any = document.add_paragraph(text)
        paragraph._p.append(parse_xml(field(inner)))  # noqa: SLF001 - the library has no other way
    assert await read(document) == ["yes \u2612", "no \u2610", "city Beijing"]
