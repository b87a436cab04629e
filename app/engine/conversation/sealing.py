"""Encrypts thinking as `encrypted_content`, for clients that keep their own context (`store: false`).

A blob is `gwr1.` and URL-safe base64 of a salt and an AES-256-GCM ciphertext. Each blob has its own key and nonce,
derived from the installation's secret and the salt (HKDF-SHA256), so the number of blobs is not limited by nonces that
could repeat. Project and model are authenticated: a blob can be opened only for the tenant it was sealed for, and only
for the model that wrote the thinking.
"""

from __future__ import annotations

import os
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PREFIX = "gwr1."
_PURPOSE = b"responses-gateway encrypted_content 1"
_SALT_BYTES = 16
_KEY_BYTES = 32
_NONCE_BYTES = 12
_PLAIN, _DEFLATED = b"\0", b"\1"
_WORTH_DEFLATING = 512
_LONGEST = 1024 * 1024


class Sealer:
    """Seals and opens blobs with one secret of at least 32 random bytes, the same in every replica."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def seal(self, text: str, *, project_id: str, model: str) -> str:
        """The blob for this text.

        If it exceeds 1 MiB of UTF-8, only the end is kept, from which the model would continue.
        """
        plain = text.encode()[-_LONGEST:]
        packed = _DEFLATED + zlib.compress(plain, 1) if len(plain) >= _WORTH_DEFLATING else _PLAIN + plain
        salt = os.urandom(_SALT_BYTES)
        cipher, nonce = self._cipher(salt)
        return _PREFIX + _encode(salt + cipher.encrypt(nonce, packed, _context(project_id, model)))

    def open(self, blob: str, *, project_id: str, model: str) -> str | None:
        """The text, or None if the blob is from elsewhere, altered, or sealed for another project or model."""
        raw = _decode(blob.removeprefix(_PREFIX)) if blob.startswith(_PREFIX) else None
        if raw is None:
            return None
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - a heavy import that most requests do not need

        cipher, nonce = self._cipher(raw[:_SALT_BYTES])
        try:
            packed = cipher.decrypt(nonce, raw[_SALT_BYTES:], _context(project_id, model))
        except InvalidTag:
            return None
        plain = _inflate(packed[1:]) if packed[:1] == _DEFLATED else packed[1:]
        # A text that was too long may have been cut inside a character.
        return plain.decode(errors="ignore")

    def _cipher(self, salt: bytes) -> tuple[AESGCM, bytes]:
        """The cipher and nonce for this salt."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 - as above

        material = HKDF(SHA256(), _KEY_BYTES + _NONCE_BYTES, salt, _PURPOSE).derive(self._secret)
        return AESGCM(material[:_KEY_BYTES]), material[_KEY_BYTES:]


def _context(project_id: str, model: str) -> bytes:
    return msgspec.json.encode((project_id, model))


def _encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    """The bytes; None unless `text` is exactly what `_encode` returns for them."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return raw if _encode(raw) == text else None


def _inflate(data: bytes) -> bytes:
    """Decompress at most as much as can ever have been sealed, whatever the data claims."""
    return zlib.decompressobj().decompress(data, _LONGEST)
