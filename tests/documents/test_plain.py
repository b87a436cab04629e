"""Text of every kind and encoding, and what is not text."""

from __future__ import annotations

import pytest

from app.documents import reading
from app.documents.base import UnreadableDocument

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SIMPLIFIED = "你好，世界。这是一个测试文件，包含一些中文内容。\n"
_TRADITIONAL = "這是一份繁體中文的測試文件，內容包括一些常用的文字。\n"
_JAPANESE = "これは日本語のテスト文書です。漢字とひらがなとカタカナを含みます。\n"
_KOREAN = "이것은 한국어 테스트 문서입니다. 여러 문장이 있습니다.\n"
_FRENCH = "Voilà un café très agréable à l'été, où l'on mange bien.\n"
_RUSSIAN = "Это русский текст для проверки кодировки.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (_SIMPLIFIED, "utf-8"),
        (_SIMPLIFIED, "utf-8-sig"),
        (_SIMPLIFIED, "utf-16"),
        (_SIMPLIFIED, "utf-32"),
        (_SIMPLIFIED, "gb18030"),
        ("订单号,客户,金额\n1,张三,20\n", "gbk"),
        ("中文版本说明\n", "gb2312"),
        (_TRADITIONAL, "big5"),
        (_JAPANESE, "shift_jis"),
        (_JAPANESE, "euc_jp"),
        (_KOREAN, "euc_kr"),
        (_FRENCH, "cp1252"),
        (_FRENCH, "utf-16-le"),
        (_FRENCH, "utf-16-be"),
        ("print('é')", "latin-1"),
        (_RUSSIAN, "cp1251"),
        (_RUSSIAN, "koi8-r"),
        ("plain ASCII", "ascii"),
        ("", "ascii"),
    ],
)
async def test_the_encoding_is_found(text: str, encoding: str) -> None:
    assert await reading.text(text.encode(encoding), filename="a.txt") == text
    long = "A head in ASCII.\n" * 10_000 + text * 200
    assert await reading.text(long.encode(encoding), filename="a.txt") == long


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.csv", 'name,note\n张三,"a, b"\n'),
        ("a.json", '{"a": ["<html>", 1]}'),
        ("a.xml", '<?xml version="1.0"?>\n<orders><order id="1">两</order></orders>'),
        ("a.md", "# Title\n\n- *one*\n"),
        ("a.py", "def f(x: int) -> str:\n    return '<body>'\n"),
        ("a.rs", 'fn main() { println!("你好"); }\n'),
        ("Makefile", "all:\n\techo hi\n"),
        ("noname", "text without a name's help"),
    ],
)
async def test_text_formats_stay_as_they_are(name: str, source: str) -> None:
    assert await reading.text(source.encode(), filename=name) == source


async def test_line_ends_are_one_kind() -> None:
    assert await reading.text(b"a\r\nb\rc\n", filename="a.txt") == "a\nb\nc\n"


async def test_one_broken_character_does_not_change_the_encoding() -> None:
    assert await reading.text(_SIMPLIFIED.encode() * 10 + b"\xff", filename="a.txt") == _SIMPLIFIED * 10 + "\ufffd"


@pytest.mark.parametrize("content", [bytes(range(256)) * 4, b"\x7fELF\x02\x01\x01" + bytes(100), b"ID3\x04\0\0\0\0\0"])
async def test_binary_files_are_refused_with_what_is_supported(content: bytes) -> None:
    with pytest.raises(UnreadableDocument, match="Supported are PDF, Word"):
        await reading.text(content, filename="a.txt")


async def test_an_image_is_named_as_such() -> None:
    with pytest.raises(UnreadableDocument, match="is an image"):
        await reading.text(b"\x89PNG\r\n\x1a\n" + bytes(30), filename="a.png")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Łódź;żółw\n", "cp1250"),
        ("Цена;Товар\n", "cp1251"),
        ("Größe;3 €\n", "cp1252"),
        ("Τιμή προϊόντος\n", "cp1253"),
        ("İstanbul'da güneşli\n", "cp1254"),
        ("מחיר המוצר\n", "cp1255"),
        ("السعر الكلي\n", "cp1256"),
        ("Цена товара\n", "cp866"),
        ("ราคาสินค้า\n", "cp874"),
        ("姓名,電話\n王小明,02-1234\n", "big5"),
        ("名前,住所\n山田,東京\n", "cp932"),
        ("이름,주소\n김,서울\n", "cp949"),
        ("姓名,价格\n张三,20\n", "utf-16-le"),
        ("姓名,价格\n张三,20\n", "utf-16-be"),
        ("hello\nnext", "cp500"),
    ],
)
async def test_a_short_table_of_an_old_encoding_is_read(text: str, encoding: str) -> None:
    assert await reading.text(text.encode(encoding), filename="a.csv") == text


async def test_what_a_file_says_of_its_encoding_is_heeded() -> None:
    page = '<?xml version="1.0" encoding="iso-8859-2"?>\n<a>ť</a>'
    assert await reading.text(page.encode("iso-8859-2"), filename="a.xml") == page
    assert (
        await reading.text("ť".encode("cp1250"), filename="a.txt", content_type="text/plain; charset=windows-1250")
        == "ť"
    )


@pytest.mark.parametrize(
    ("name", "written", "shown"),
    [
        ("a.json", r'{"名": "\u4f60\u597d \ud83d\ude00"}', '{"名": "你好 😀"}'),
        ("a.jsonl", r'{"a": "\u4f60"}' + "\n" + r'{"a": "\u597d"}', '{"a": "你"}\n{"a": "好"}'),
        ("a.json", r'{"a": "\\u4f60 \u0022 \u000a \ud83d"}', r'{"a": "\\u4f60 \u0022 \u000a \ud83d"}'),
        ("a.py", r's = "\u4f60"', r's = "\u4f60"'),
        ("a.json", r'{"a": "\u4f60", not JSON}', r'{"a": "\u4f60", not JSON}'),
    ],
)
async def test_escapes_of_json_are_characters(name: str, written: str, shown: str) -> None:
    assert await reading.text(written.encode(), filename=name) == shown


async def test_pictures_in_base64_are_left_out_of_text() -> None:
    said = await reading.text(f"![logo](data:image/png;base64,{'A' * 300}) end".encode(), filename="a.md")
    assert said == "![logo](picture-left-out) end\n\n[Not in this text: 1 picture]"
