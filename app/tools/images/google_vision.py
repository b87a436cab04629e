"""Google Cloud Vision's web detection: accepts the image itself, so it also works for images without a public address.

`images:annotate` with `WEB_DETECTION`, https://cloud.google.com/vision/docs/reference/rest/v1/images/annotate.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec

from app.tools.images.base import FoundImage, LensProvider, Sample
from app.tools.search.base import Api, SearchFailed


class _Image(msgspec.Struct):
    url: str | None = None


class _Page(msgspec.Struct, rename="camel"):
    url: str | None = None
    page_title: str | None = None
    full_matching_images: list[_Image] | None = None
    partial_matching_images: list[_Image] | None = None


class _Label(msgspec.Struct):
    label: str | None = None


class _Web(msgspec.Struct, rename="camel"):
    pages_with_matching_images: list[_Page] | None = None
    full_matching_images: list[_Image] | None = None
    partial_matching_images: list[_Image] | None = None
    visually_similar_images: list[_Image] | None = None
    best_guess_labels: list[_Label] | None = None


class _Problem(msgspec.Struct):
    code: int = 0


class _Annotation(msgspec.Struct, rename="camel"):
    web_detection: _Web | None = None
    error: _Problem | None = None


class _Answer(msgspec.Struct):
    responses: list[_Annotation] | None = None


async def _lens(api: Api, sample: Sample) -> Sequence[FoundImage]:
    question = {
        "image": {"content": base64.b64encode(sample.content).decode()},
        "features": [{"type": "WEB_DETECTION", "maxResults": sample.limit}],
    }
    answer = await api.post("/v1/images:annotate", {"requests": [question]}, _Answer)
    annotation = answer.responses[0] if answer.responses else _Annotation()
    if annotation.error is not None:
        raise SearchFailed(f"code {annotation.error.code}")
    return _found(annotation.web_detection or _Web())


def _found(web: _Web) -> list[FoundImage]:
    """The same image first, with the pages that show it; then its parts; then only similar ones."""
    label = next((guess.label for guess in web.best_guess_labels or () if guess.label), "")
    pages = web.pages_with_matching_images or ()
    shown = [(image, page) for page in pages for image in page.full_matching_images or ()]
    shown += [(image, page) for page in pages for image in page.partial_matching_images or ()]
    alone = [
        *(web.full_matching_images or ()),
        *(web.partial_matching_images or ()),
        *(web.visually_similar_images or ()),
    ]
    return [
        *(FoundImage(image.url or "", page.page_title or label, page.url) for image, page in shown),
        *(FoundImage(image.url or "", label) for image in alone),
    ]


LENS = LensProvider(ask=_lens, address="https://vision.googleapis.com", sign=lambda key: {"x-goog-api-key": key})
