"""What libtorrent is told: private, bounded, and nothing that nobody asked for."""

from __future__ import annotations

from typing import Any, Final

from local_worker.swarm.sources import Limits, Place, numeric_place

NOBODY: Final = ""
"""Listens nowhere."""


def session_settings(lt: Any, limits: Limits, listen: Place | None, finds_peers: bool) -> dict[str, Any]:
    """What a session runs under.

    Args:
        lt: the library.
        listen: None listens nowhere.
        finds_peers: whether the DHT may be asked.
    """
    categories = lt.alert.category_t
    return {
        "alert_mask": categories.error_notification
        | categories.peer_notification
        | categories.status_notification
        | categories.storage_notification,
        "alert_queue_size": 10_000,
        "listen_interfaces": NOBODY if listen is None else numeric_place(*listen),
        "max_retry_port_bind": 0,
        "listen_system_port_fallback": False,
        "enable_dht": finds_peers,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        # TCP alone: one way in and out, whose limits and failures are those that everybody knows.
        "enable_outgoing_utp": False,
        "enable_incoming_utp": False,
        # Obfuscation, not secrecy: what travels is public, and every byte of it is checked.
        "out_enc_policy": 2,
        "in_enc_policy": 2,
        "anonymous_mode": True,
        # Several providers may live behind one address.
        "allow_multiple_connections_per_ip": True,
        "upload_rate_limit": limits.upload_bytes_per_s,
        "download_rate_limit": limits.download_bytes_per_s,
        "connections_limit": limits.connections,
        "tick_interval": 100,
        "min_reconnect_time": 2,
        "max_failcount": 30,
        "peer_connect_timeout": 10,
        "handshake_timeout": 10,
        # Written with pwrite: a full disk under a mapped file is a signal, not an error.
        "mmap_file_size_cutoff": (1 << 31) - 1,
        "file_pool_size": 64,
        "aio_threads": 4,
        "hashing_threads": 1,
    }
