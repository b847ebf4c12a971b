"""The items of a catalogue, page by page in order of their ids.

Ids stay in order whatever is changed or published meanwhile: an item that is there from the first page to the last stands on
exactly one of them.
"""

from recall.bundle.reader import Bundle
from recall.serving.response import CatalogueItem, Page
from recall.store.items.snapshot import CatalogSnapshot


class Listing:
    """Lists the items of one bundle and of what lies over it. Threads share it."""

    def __init__(self, bundle: Bundle) -> None:
        """List the items of a bundle and of its snapshots."""
        self._bundle = bundle

    def page(self, catalogue: CatalogSnapshot, count: int, after: str | None) -> Page:
        """Return the first items in order of their ids.

        Args:
            catalogue: as it is now.
            count: items wanted.
            after: only ids after this one; None for all.
        """
        found = catalogue.ids_after(after, count + 1)
        return self._page(catalogue, found[:count], found[count - 1] if len(found) > count else None)

    def one(self, catalogue: CatalogSnapshot, item_id: str) -> Page:
        """Return one item as a page, which is empty if the catalogue lacks it.

        Args:
            catalogue: as it is now.
            item_id: of the item.
        """
        return self._page(catalogue, [item_id] if catalogue.rows([item_id])[0] >= 0 else [], None)

    def _page(self, catalogue: CatalogSnapshot, ids: list[str], after: str | None) -> Page:
        key = self._bundle.manifest.schema_.item_id
        return Page(
            items=tuple(
                CatalogueItem(values.pop(key), {name: value for name, value in values.items() if value is not None})
                for values in (catalogue.table(catalogue.rows(ids)).to_dicts() if ids else ())
            ),
            after=after,
            bundle=self._bundle.manifest.version,
            sequence=catalogue.sequence,
            degraded=catalogue.degraded,
        )
