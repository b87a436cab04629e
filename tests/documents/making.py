"""Documents made on the spot, by the libraries whose formats they have."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page, in any script; its font is named only, as PDFs of old do."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        f"<< /Type /Font /Subtype /Type0 /BaseFont /F /Encoding /Identity-H /DescendantFonts [{4 + 2 * count} 0 R] "
        f"/ToUnicode {5 + 2 * count} 0 R >>".encode(),
    ]
    for i, text in enumerate(pages):
        shown = f"BT /F1 12 Tf 50 700 Td <{text.encode('utf-16-be').hex()}> Tj ET".encode()
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F1 3 0 R >> >> /Contents "
            b"%d 0 R >>" % (5 + 2 * i)
        )
        objects.append(_stream(shown))
    objects.append(
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /F /CIDSystemInfo << /Registry (Adobe) /Ordering "
        b"(Identity) /Supplement 0 >> >>"
    )
    objects.append(_stream(_TO_UNICODE))
    out, offsets = b"%PDF-1.7\n", list[int]()
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return out + b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        size,
        table,
        size,
        len(out),
    )


def with_part(package: bytes, name: str, content: bytes) -> bytes:
    """An Office document with one part put in, or in place of the one that was there."""
    result = BytesIO()
    with ZipFile(BytesIO(package)) as old, ZipFile(result, "w", ZIP_DEFLATED) as new:
        for part in old.namelist():
            if part != name:
                new.writestr(part, old.read(part))
        new.writestr(name, content)
    return result.getvalue()


def with_parts(package: bytes, notes: dict[str, str]) -> bytes:
    """A Word document with footnotes, endnotes or the like, by the singular of their name, as parts of their own."""
    space = "http://schemas.openxmlformats.org"
    types, links = part(package, "[Content_Types].xml").decode(), part(package, "word/_rels/document.xml.rels").decode()
    for name, content in notes.items():
        kind = f"application/vnd.openxmlformats-officedocument.wordprocessingml.{name}s+xml"
        types = types.replace("</Types>", f'<Override PartName="/word/{name}s.xml" ContentType="{kind}"/></Types>')
        link = (
            f'<Relationship Id="x{name}" Type="{space}/officeDocument/2006/relationships/{name}s" '
            f'Target="{name}s.xml"/>'
        )
        links = links.replace("</Relationships>", f"{link}</Relationships>")
        package = with_part(package, f"word/{name}s.xml", content.encode())
    package = with_part(package, "[Content_Types].xml", types.encode())
    return with_part(package, "word/_rels/document.xml.rels", links.encode())


def saved(document: Any) -> bytes:
    """A document of python-docx, python-pptx or openpyxl as a file."""
    target = BytesIO()
    document.save(target)
    return target.getvalue()


def part(package: bytes, name: str) -> bytes:
    """A part of an Office document."""
    with ZipFile(BytesIO(package)) as opened:
        return opened.read(name)


def _stream(content: bytes) -> bytes:
    return b"<< /Length %d >>\nstream\n%b\nendstream" % (len(content), content)


_TO_UNICODE = b"""/CIDInit /ProcSet findresource begin
12 dict begin
begincmap
/CMapName /Plain def
/CMapType 2 def
1 begincodespacerange
<0000> <FFFF>
endcodespacerange
1 beginbfrange
<0000> <FFFF> <0000>
endbfrange
endcmap
end
end"""
