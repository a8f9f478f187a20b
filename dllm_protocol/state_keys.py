"""Every provable path, once [format]. Keys are ASCII; the tree places them by their SHA-256."""

from __future__ import annotations

from functools import lru_cache

CHAIN = b"chain"
APP_VERSION = b"app_version"
PARAMS = b"params"
SUPPLY = b"supply"
COMMUNITY_POOL = b"pool/community"
FEE_POOL = b"pool/fees"
MODELS = b"models"
VALIDATORS = b"validators"
CANDIDATES = b"candidates"


@lru_cache(maxsize=1024)
def account(address: bytes) -> bytes:
    """→ `records.Account`. Remembered, because a transfer asks for the same two again and again."""
    return b"account/" + address.hex().encode()


def chat_key(address: bytes) -> bytes:
    """→ `records.ChatKey` that the account granted."""
    return b"chat_key/" + address.hex().encode()


def provider(provider_id: bytes) -> bytes:
    """→ `records.Provider`."""
    return b"provider/" + provider_id.hex().encode()


def providers_of(owner: bytes) -> bytes:
    """→ `records.ProviderSet` of an owner."""
    return b"providers_of/" + owner.hex().encode()


def model(name: str) -> bytes:
    """→ `records.ModelRecord`."""
    return b"model/" + name.encode()


def offer(model_name: str, provider_id: bytes) -> bytes:
    """→ `records.Offer`."""
    return b"offer/" + model_name.encode() + b"/" + provider_id.hex().encode()


def live_offers(model_name: str) -> bytes:
    """→ `records.ProviderSet` of those with an offer for the model now."""
    return b"live_offers/" + model_name.encode()


def offers_of(provider_id: bytes) -> bytes:
    """→ `records.ModelSet` that a provider offers."""
    return b"offers_of/" + provider_id.hex().encode()


def offer_book(model_name: str, epoch: int) -> bytes:
    """→ `records.OfferBookHead`: the hash of the book frozen in that epoch."""
    return b"offer_book/%s/%d" % (model_name.encode(), epoch)


def latest_offer_book(model_name: str) -> bytes:
    """→ `records.OfferBookHead` of the newest book."""
    return b"latest_offer_book/" + model_name.encode()


def offer_list(model_name: str, epoch: int) -> bytes:
    """→ `offer_book.OfferBook`, the canonical list itself."""
    return b"offer_list/%s/%d" % (model_name.encode(), epoch)


def holding(model_name: str, provider_id: bytes) -> bytes:
    """→ `records.Holding`."""
    return b"holding/" + model_name.encode() + b"/" + provider_id.hex().encode()


def live_holders(model_name: str) -> bytes:
    """→ `records.ProviderSet` of those with a holding for the model now."""
    return b"live_holders/" + model_name.encode()


def holder_list(model_name: str, epoch: int) -> bytes:
    """→ `holder_book.HolderBook`, the canonical list itself; its hash stands in the head of the offer book."""
    return b"holder_list/%s/%d" % (model_name.encode(), epoch)


def session(session_id: bytes) -> bytes:
    """→ `records.Session`."""
    return b"session/" + session_id.hex().encode()


def route(session_id: bytes) -> bytes:
    """→ `records.Route`."""
    return b"route/" + session_id.hex().encode()


def slashed(provider_id: bytes, session_id: bytes, n: int) -> bytes:
    """→ `records.Slash` for two acks of voucher ``n``."""
    return b"slashed/%s/%s/%d" % (provider_id.hex().encode(), session_id.hex().encode(), n)


def validator(address: bytes) -> bytes:
    """→ `records.ValidatorRecord` by the address of its consensus key."""
    return b"validator/" + address.hex().encode()


def reputation(provider_id: bytes, model_name: str) -> bytes:
    """→ `records.Reputation`."""
    return b"reputation/" + provider_id.hex().encode() + b"/" + model_name.encode()


def rater_quota(provider_id: bytes, model_name: str, payer: bytes) -> bytes:
    """→ `records.RaterQuota`."""
    return b"rater/" + provider_id.hex().encode() + b"/" + model_name.encode() + b"/" + payer.hex().encode()
