"""Gauges of what is served, set now and then rather than at every request."""

from service.metrics.exposition import seconds_of
from service.metrics.meters import Meters
from service.snapshot import Snapshot


def measure_bundle(meters: Meters, snapshot: Snapshot) -> None:
    """Another bundle is served."""
    manifest = snapshot.recommender.bundle.manifest
    sequence, _, digest = manifest.version.partition("-")
    meters.version.set(int(sequence))
    meters.digest.set(int(digest, 16))
    meters.created.set(seconds_of(manifest.created))
    meters.bundle_items.set(manifest.sizes.items)
    meters.bundle_users.set(manifest.sizes.users)
    meters.search_seconds.set(snapshot.search_seconds)
    certificate = manifest.index.certificate
    meters.promised.set(1.0 if snapshot.recommender.index.exact else certificate.lower if certificate is not None else 0.0)


def measure_overlay(meters: Meters, snapshot: Snapshot) -> None:
    """What lies over the bundle now."""
    items = snapshot.recommender.items
    catalogue = items.current()
    overlay = catalogue.overlay
    meters.troubled.set(bool(catalogue.trouble))
    meters.unsaved.set(items.unsaved)
    meters.logged.set(items.logged)
    meters.log_bytes.set(items.log_bytes)
    meters.overlay_items.set(overlay.count)
    meters.overlay_hidden.set(overlay.hidden.count)
    meters.overlay_sequence.set(overlay.sequence)
    meters.overlay_refused.set(len(overlay.refused))
