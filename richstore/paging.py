"""Commits: which records there are to be, and what each of them holds.

Theory of operation
-------------------

Operations change contents, and leave it to the commit to keep records small and nodes where they
belong. `Commit.write` does it in three steps:

1. *Membership*. A node lives in the record that reaches it. One that another record reaches instead
   (it was moved, or its page was split) moves there; one that several reach becomes the main node
   of a *shared* record of its own, which the others refer to and which counts them.
2. *Size*. A record whose encoded form has outgrown `PAGE` is divided: a page is split, and in any
   other record the innermost containers that are large become spread ones. A page that has become
   small is joined with its neighbour; a container whose only page is small comes back into the
   record it belongs to. Between the two sizes lies a factor of four, so that nothing flaps.
3. *Puts*: the records, the cells of spread containers, the count, the log. What has left the store
   goes to the reclaim list, and a bounded number of records that were there already are deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from richstore import pages
from richstore.codec import log, records
from richstore.encoding import Encoded, encode, is_main, reach
from richstore.errors import CorruptionError
from richstore.node import Node, Spread
from richstore.pages import Directory, Step, Tree, cell_name, entry_form, entry_name, page_name
from richstore.reclaiming import Circle, Reclaimer, links_of
from richstore.record import Record
from richstore.spaces import COUNTER, GROUP, GROUPED
from richstore.tracker import COUNT_KEY, LOG_KEY

__all__ = ["PAGE", "Commit", "belongs", "restore"]

# The largest encoded form of a record that is divided no further, in bytes. LMDB keeps what is
# larger than half of its pages on pages of its own: this much fits on one of them.
PAGE = 4064
# A page smaller than this part of PAGE is joined with another.
_SMALL = 4
# How full pages are made at the end of a container, where more may follow, and elsewhere.
_FULL, _ROOMY = 0.97, 0.65
# Records of deleted values that one commit deletes.
RECLAIM = 64


def belongs(page: Record, content: Spread) -> bool:
    """Tell whether a page is one of a spread container."""
    return page.name[1:9] == content.cid.to_bytes(8, "big")


class Commit:
    """One commit of a transaction.

    Args:
        transaction: the transaction.

    Attributes:
        before: a view of the state before it, for those who hold what leaves the store by it; None
            when nothing large does.
    """

    def __init__(self, transaction: Any) -> None:
        self.tx = transaction
        self.tracker = transaction.tracker
        self.before: Any = None
        self.encoded: dict[Record, Encoded] = {}
        # pages and shared records that were made, and that are to go
        self.made: dict[Record, None] = dict.fromkeys(transaction.fresh.values())
        self.dropped: dict[Record, None] = {}
        # spread ids whose container is gone
        self.gone: list[int] = []
        # by engine key of a shared record: references more or fewer
        self.references: Counter[bytes] = Counter()
        # those that lost one: they may be part of a circle that nothing else refers to
        self.suspects: dict[bytes, None] = {}
        self.counts: dict[bytes, int] = transaction.reclaimed
        self.hopeless: set[Record] = set()
        # by engine key: the records of values that were replaced or deleted
        self.replaced: dict[bytes, Record | None] = {}

    # --- the steps ---

    def write(self) -> bool:
        """Put all changes into the engine's transaction; return whether there were any."""
        tx = self.tx
        engine = tx.engine
        names: list[bytes] = []
        roots = tx.roots
        changed = self._changed()
        for name, root in roots.items():
            stored = engine.get(name)
            if stored is not None:
                self._leave(stored, name)
            if root is None and stored is not None:
                engine.delete(name)
                names.append(name)
        for node in tx.touched:
            content = node.content
            if isinstance(content, Spread) and content is not node.work:
                self.gone.append(content.cid)
        self._divide(changed)
        for record, one in self.encoded.items():
            data = one.data
            if record.count is not None:
                # what was reclaimed meanwhile is known to the engine alone
                kept = engine.get(record.name)
                data = records.with_count(
                    record.name, data, (records.count_of(kept) or 0) if kept is not None else 0
                )
            engine.put(record.name, data)
            names.append(record.name)
            if one.links is not record.links and one.links != record.links:
                self._refer(one.links, record.links)
            for node in one.dead:
                if isinstance(node.content, Spread):
                    self.gone.append(node.content.cid)
        for record in self.dropped:
            if engine.delete(record.name):
                names.append(record.name)
            self._refer((), record.links)
            for node in record.nodes.values():
                if isinstance(node.content, Spread):
                    self.gone.append(node.content.cid)
        if tx.built:
            alive = {cid for one in self.encoded.values() for cid in one.spreads}
            self.gone += [cid for cid in tx.built if cid not in alive]
        names += self._put_cells()
        names += self._put_counts()
        if self.gone or self._has_left():
            self.before = self.tracker.engine.read()
            for cid in self.gone:
                engine.put(pages.RECLAIM + cid.to_bytes(8, "big"), b"")
        if not names and not tx.count and not tx.written:
            return False
        if self.tracker.reclaimable or self.gone:
            self.tracker.reclaimable = True
            reclaimer = Reclaimer(self.tracker, engine)
            reclaimer.run(RECLAIM)
            self.counts |= reclaimer.counts
        if self.counts:
            # those of `compact`, too
            names += self.counts.keys() - set(names)
        if tx.count:
            count = self.tracker.count(engine.get) + tx.count
            engine.put(COUNT_KEY, count.to_bytes(8, "little"))
        engine.put(LOG_KEY, log.extend(engine.get(LOG_KEY) or b"", engine.id, names))
        return True

    def _has_left(self) -> bool:
        """Tell whether something large that is loaded has left the store with its group."""
        tx = self.tx
        if not any(cell is None and name[:1] == COUNTER for name, cell in tx.cells.items()):
            return False
        return any(
            isinstance(node.content, Spread)
            for name, record in list(self.tracker.live.items())
            if tx.has_left(name)
            for node in record.nodes.values()
        )

    def _changed(self) -> list[Record]:
        """Return the records that hold changed nodes, or are new."""
        tx = self.tx
        found: dict[Record, None] = dict(tx.rewritten)
        for node in tx.touched:
            if node.record is not None:
                found[node.record] = None
        for node in tx.levels[0].births:
            if node.record is not None:
                found[node.record] = None
        for root in tx.roots.values():
            if root is not None:
                found[root] = None
        return [record for record in found if self._is_current(record)]

    def _is_current(self, record: Record) -> bool:
        """Tell whether a record is still part of the store."""
        return self.tx.is_current(record.root) and self._is_part(record)

    def _is_part(self, record: Record) -> bool:
        """Tell whether a record is part of its value still."""
        if record in self.dropped:
            return False
        owner = record.owner
        if owner is None:
            return True
        return isinstance(owner.work, Spread) and belongs(record, owner.work)

    # --- membership ---

    def _settle(self, changed: Iterable[Record]) -> dict[Record, None]:
        """Let every node live in the record that reaches it.

        Args:
            changed: the records that may reach others than before.

        Returns:
            These, and all that were changed by it.
        """
        todo = dict.fromkeys(changed)
        affected = dict(todo)
        claims: dict[Node, Record] = {}
        claimed: dict[Record, list[Node]] = {}
        tracker = self.tracker
        while todo:
            record = todo.popitem()[0]
            for node in claimed.pop(record, ()):
                if claims.get(node) is record:
                    del claims[node]
            mine: list[Node] = []
            claimed[record] = mine
            adopt = tracker.faces.adopter(self.tx, record)
            stack = list(tracker.faces.nodes_in(record.value))
            while stack:
                node = stack.pop()
                other = node.record
                if other is not record and is_main(node):
                    continue
                claimant = claims.get(node)
                if claimant is record:
                    continue
                if claimant is not None:
                    shared = self._share(node)
                    # it walks again, and will not get below this node
                    for claim in claimed.pop(claimant, ()):
                        if claims.get(claim) is claimant:
                            del claims[claim]
                    for one in (claimant, shared, other):
                        if one is not None and self._is_current(one):
                            todo[one] = affected[one] = None
                    continue
                claims[node] = record
                mine.append(node)
                known = other is None or other is record or other in claimed or other in todo
                if other is not None and not known and self._is_current(other):
                    # it may still have the node
                    todo[other] = None
                if node.kids is None:
                    node.kids = node.kind.scan(node, adopt)
                stack += node.kids
        moves = [(node, record) for node, record in claims.items() if node.record is not record]
        for one in {one for node, record in moves for one in (node.record, record)}:
            if one is not None:
                self._rearrange(one)
        for node, record in moves:
            old = node.record
            if old is not record:
                if old is not None and self._is_current(old):
                    affected[old] = None
                affected[record] = None
                self._move(node, record)
                top: Record | None = record
                while top is not None and top.owner is not None:
                    top = top.owner.record
                if top is not None and top.count is not None:
                    # what only it reaches now may have been what it was reached by
                    self.suspects[top.name] = None
        return affected

    def _move(self, node: Node, record: Record) -> None:
        """Let a node live in another record; both have been noted by `_rearrange`."""
        old = node.record
        if old is not None:
            if not self._is_current(old):
                # its container is gone; it must not be reclaimed with what has moved out of it
                self.dropped[old] = None
            old.dismiss(node)
        node.fragment = None
        record.take_in(node)
        if record.base is None:
            record.base = node.uid

    def _share(self, node: Node) -> Record:
        """Make a node the main one of a record of its own."""
        old = node.record
        assert old is not None
        number = self.tracker.number()
        record = Record(
            self.tracker, pages.SHARED + number.to_bytes(8, "big"), None, old.root, None
        )
        record.count = 0
        record.value = node.face
        self.made[record] = None
        self._rearrange(old)
        self._rearrange(record)
        self._move(node, record)
        return record

    def _rearrange(self, record: Record) -> None:
        """Note which nodes a record has, for the way back; what was encoded has other slots now."""
        kept = self.tx.rearranged
        if record not in kept:
            kept[record] = (
                dict(record.nodes),
                dict(record.externals),
                list(record.free),
                record.top,
                record.base,
            )
        record.order = None
        for node in record.nodes.values():
            node.fragment = None

    # --- size ---

    def _divide(self, changed: list[Record]) -> None:
        """Encode the changed records, and those that come out of them, until all have their
        size.
        """
        tx = self.tx
        found = {record: reach(tx, record) for record in changed}
        if any(one.foreign for one in found.values()):
            found = {record: reach(tx, record) for record in self._settle(changed)}
        todo = dict.fromkeys(found)
        while todo:
            record = todo.popitem()[0]
            if not self._is_current(record):
                continue
            reached = found.pop(record, None) or reach(tx, record)
            if (reached.mains or record.externals) and reached.mains != record.externals.keys():
                self._rearrange(record)
            one = encode(tx, record, reached)
            affected = self._fit(record, one)
            if affected is None:
                self.encoded[record] = one
                record.size = len(one.data)
                continue
            for other in self._settle(affected):
                self.encoded.pop(other, None)
                found.pop(other, None)
                todo[other] = None

    def _fit(self, record: Record, one: Encoded) -> list[Record] | None:
        """Divide or join a record of the wrong size; return the records this changes, or None."""
        size = len(one.data)
        if record.owner is not None:
            main = record.main
            assert main is not None
            items = len(main.work)
            if size > PAGE and items > 1 and record not in self.hopeless:
                return self._split(record, main)
            if not items or (size < PAGE // _SMALL and size <= record.size):
                return self._shrink(record, main, size)
        if size > PAGE and record not in self.hopeless:
            return self._spread(record, one)
        return None

    def _sizes(self, nodes: Iterable[Node]) -> dict[Node, int]:
        """Return for each node the encoded size of it and all that it is the first to refer to."""
        sizes: dict[Node, int] = {}
        counted: set[Node] = set()
        for node in nodes:
            size = len(node.fragment or b"") + 8
            for kid in node.kids or ():
                if kid not in counted:
                    counted.add(kid)
                    size += sizes.get(kid, 16)
            sizes[node] = size
        return sizes

    def _groups(self, node: Node, sizes: dict[Node, int], full: float, at_end: bool) -> list[Any]:
        """Divide the items of a container into such groups as fit on a page each."""
        content = node.work
        nodes_in = self.tracker.faces.nodes_in
        own = len(node.fragment or b"") / max(1, len(content))
        is_dict = isinstance(content, dict)
        limit = PAGE * full
        weights: list[float] = []
        for item in content.items() if is_dict else content:
            weight = own
            for kid in nodes_in(item):
                weight += sizes.get(kid, 16)
            weights.append(weight)
        if not at_end:
            total = sum(weights)
            limit = max(total / max(2, -(-total // limit)), own)
        items = list(content.items()) if is_dict else list(content)
        groups: list[Any] = []
        start, filled = 0, 0.0
        for at, weight in enumerate(weights):
            if at > start and filled + weight > limit:
                groups.append(items[start:at])
                start, filled = at, 0.0
            filled += weight
        groups.append(items[start:])
        return [dict(group) for group in groups] if is_dict else groups

    def _take(self, node: Node) -> None:
        """Have a working copy of a node that the commit changes."""
        if node.tx is not self.tx:
            self.tx.take(node)
        node.fragment = node.kids = None

    @staticmethod
    def _kind(node: Node) -> Any:
        """Return the kind of a list, dict or set, which has more to it than other kinds."""
        return node.kind

    @staticmethod
    def _path(tree: Tree, record: Record) -> list[Step]:
        """Return the way to a page of a list."""
        path = tree.path_to(int.from_bytes(record.name[9:], "big"), record.trail)
        if path is None:
            raise CorruptionError(f"page {record.name!r} is not in the index of its list")
        return path

    def _page(self, owner: Node, cid: int, pid: int, content: Any) -> Record:
        """Return a new page with some items."""
        assert owner.record is not None
        record = Record(self.tracker, page_name(cid, pid), None, owner.record.root, owner)
        kind = self._kind(owner)
        main: Node = kind.make(None, -1, -1, kind.clean, kind.builtin(content))
        record.value = main.face
        self.made[record] = None
        self.tx.born(record, main)
        return record

    def _split(self, record: Record, main: Node) -> list[Record]:
        """Divide a page."""
        owner = record.owner
        assert owner is not None
        cid = owner.work.cid
        pid = int.from_bytes(record.name[9:], "big")
        number = self.tracker.number
        nodes = self.tx.orders[record][0]
        tree = Tree(self.tx, cid)
        path: list[Step] = []
        if not isinstance(main.work, list):
            directory = self.tx.cell(cell_name(cid))
            last = directory.last == pid
        else:
            path = self._path(tree, record)
            last = all(at == len(index.ids) - 1 for _, index, at in path)
        groups = self._groups(main, self._sizes(nodes), _FULL if last else _ROOMY, last)
        if len(groups) == 1:
            half = len(main.work) // 2
            items = list(main.work.items() if isinstance(main.work, dict) else main.work)
            builtin = type(main.work)
            groups = [builtin(items[:half]), builtin(items[half:])]
        pids: list[int] | None
        if isinstance(main.work, list):
            pids = [pid] + [number() for _ in groups[1:]]
            children = list(zip(pids, map(len, groups), strict=True))
            tree.replace(path, path[-1][2] + 1, children, number)
        else:
            pids = self._pids_after(cid, pid, len(groups), last)
            if pids is None:
                self.hopeless.add(record)
                return self._spread(record, self.encoded_again(record)) or [record]
            for new, group in zip(pids[1:], groups[1:], strict=True):
                self._enter(cid, group, new)
            if last:
                self.tx.set_cell(cell_name(cid), Directory(directory.count, pids[-1]))
        self._take(main)
        main.work = type(main.work)(groups[0])
        if main not in self.tx.touched:
            self._kind(main).gather(main, main.work)
        made = [
            self._page(owner, cid, new, group)
            for new, group in zip(pids[1:], groups[1:], strict=True)
        ]
        return [record, *made]

    def encoded_again(self, record: Record) -> Encoded:
        """Return a record's encoded form as things are."""
        return encode(self.tx, record, reach(self.tx, record))

    def _pids_after(self, cid: int, pid: int, count: int, last: bool) -> list[int] | None:
        """Return ids for the parts of a page of a dict or set; None when there is no room."""
        if last:
            return [pid + at * pages.STEP for at in range(count)]
        after = self._neighbour(cid, pid)
        assert after is not None
        gap = (after - pid) // count
        return [pid + at * gap for at in range(count)] if gap else None

    def _neighbour(self, cid: int, pid: int, reverse: bool = False) -> int | None:
        """Return the id of the page of a dict or set after one, or before it."""
        first = page_name(cid, 0 if reverse else pid + 1)
        last = page_name(cid, pid) if reverse else page_name(cid + 1, 0)
        found: int | None = None
        for name, _ in self.tx.engine.scan(first, last, reverse=reverse):
            if not any(record.name == name for record in self.dropped):
                found = int.from_bytes(name[9:], "big")
                break
        for record in self.made:
            if record.name[:9] == first[:9] and record not in self.dropped:
                other = int.from_bytes(record.name[9:], "big")
                if reverse and other < pid and (found is None or other > found):
                    found = other
                if not reverse and other > pid and (found is None or other < found):
                    found = other
        return found

    def _enter(self, cid: int, group: Any, pid: int) -> None:
        """Note which page has these keys."""
        stored = pid.to_bytes(8, "big")
        for key in group:
            form = entry_form(key)
            assert form is not None
            self.tx.set_cell(entry_name(cid, form), stored)

    def _shrink(self, record: Record, main: Node, size: int) -> list[Record] | None:
        """Join a small page with its neighbour, or bring its items back; None: leave it."""
        owner = record.owner
        assert owner is not None and owner.record is not None
        cid = owner.work.cid
        pid = int.from_bytes(record.name[9:], "big")
        tree = Tree(self.tx, cid)
        path: list[Step] = []
        if isinstance(main.work, list):
            path = self._path(tree, record)
            _, index, at = path[-1]
            if len(path) == 1 and len(index.ids) == 1:
                return None if cid in self.tx.built else self._gather(record, owner, main)
            if not main.work:
                tree.replace(path, at + 1, [], self.tracker.number)
                self._drop(record)
                return []
            if at + 1 < len(index.ids):
                left, right = pid, index.ids[at + 1]
            elif at:
                left, right = index.ids[at - 1], pid
            else:
                return None
        else:
            directory = self.tx.cell(cell_name(cid))
            after = self._neighbour(cid, pid)
            before = self._neighbour(cid, pid, reverse=True)
            if after is None and before is None:
                return None if cid in self.tx.built else self._gather(record, owner, main)
            if not main.work:
                if before is not None and after is None:
                    self.tx.set_cell(cell_name(cid), Directory(directory.count, before))
                self._drop(record)
                return []
            left, right = (pid, after) if after is not None else (before or 0, pid)
        name = page_name(cid, right if left == pid else left)
        other = self._loaded(name, owner, size)
        if other is None:
            return None
        first, second = (record, other) if left == pid else (other, record)
        kept, joined = first.main, second.main
        assert kept is not None and joined is not None
        self._take(kept)
        if isinstance(kept.work, list):
            child = index.ids.index(left)
            counts = (left, len(kept.work) + len(joined.work))
            way = [*path[:-1], (path[-1][0], index, child)]
            tree.replace(way, child + 2, [counts], self.tracker.number)
            kept.work.extend(joined.work)
        else:
            kept.work.update(joined.work)
            self._enter(cid, joined.work, left)
            if directory.last == right:
                self.tx.set_cell(cell_name(cid), Directory(directory.count, left))
        self._drop(second)
        return [first]

    def _loaded(self, name: bytes, owner: Node, size: int) -> Record | None:
        """Return a neighbouring page if a page of some size can be joined with it."""
        for record, one in self.encoded.items():
            if record.name == name:
                return record if len(one.data) + size < PAGE * _ROOMY else None
        if any(record.name == name for record in self.made):
            return None
        stored = self.tx.engine.get(name)
        if stored is None or len(stored) + size > PAGE * _ROOMY:
            return None
        found: Record | None = self.tracker.page(name, owner)
        if found is None or (found.main is not None and found.main.tx is self.tx):
            # it is changed as well, and has its turn
            return None
        return found

    def _drop(self, record: Record) -> None:
        """Let a page go whose items are elsewhere."""
        self._rearrange(record)
        self.encoded.pop(record, None)
        self.made.pop(record, None)
        self.dropped[record] = None

    def _gather(self, record: Record, owner: Node, main: Node) -> list[Record]:
        """Bring the items of the only page back into the record of their container."""
        assert owner.record is not None
        cid = owner.work.cid
        content = main.work
        self._take(owner)
        self._kind(owner).gather(owner, content.copy())
        owner.row = None
        self._drop(record)
        self.tx.built.pop(cid, None)
        for key in content if not isinstance(content, list) else ():
            form = entry_form(key)
            assert form is not None
            self.tx.set_cell(entry_name(cid, form), None)
        self.tx.set_cell(cell_name(cid), None)
        if cid in self.gone:
            self.gone.remove(cid)
        return [owner.record]

    def _spread(self, record: Record, one: Encoded) -> list[Record] | None:
        """Let the innermost large containers of a record be spread ones; None: there is none."""
        nodes = one.nodes
        main = record.main if record.owner is not None else None
        threshold = PAGE // 2
        # what comes out smaller would come back at once
        while threshold > PAGE // _SMALL:
            chosen: list[Node] = []
            sizes: dict[Node, int] = {}
            counted: set[Node] = set()
            for node in nodes:
                size = len(node.fragment or b"") + 8
                for kid in node.kids or ():
                    if kid not in counted:
                        counted.add(kid)
                        size += sizes.get(kid, 16)
                if size >= threshold and node is not main and _can_spread(node):
                    chosen.append(node)
                    size = 24
                sizes[node] = size
            if chosen:
                affected: dict[Record, None] = {record: None}
                for node in chosen:
                    affected |= dict.fromkeys(self._spread_one(node, sizes))
                return list(affected)
            threshold = threshold * 3 // 4
        self.hopeless.add(record)
        return None

    def _spread_one(self, node: Node, sizes: dict[Node, int]) -> list[Record]:
        number = self.tracker.number
        cid = number()
        groups = self._groups(node, sizes, _FULL, True)
        if isinstance(node.work, list):
            pids = [number() for _ in groups]
            Tree(self.tx, cid).build(list(zip(pids, map(len, groups), strict=True)), number)
        else:
            pids = [(at + 1) * pages.STEP for at in range(len(groups))]
            for pid, group in zip(pids, groups, strict=True):
                self._enter(cid, group, pid)
            self.tx.set_cell(cell_name(cid), Directory(len(node.work), pids[-1]))
        if node.tx is not self.tx:
            self.tx.take(node)
        node.fragment = None
        node.kids = []
        node.row = None
        made = [self._page(node, cid, pid, group) for pid, group in zip(pids, groups, strict=True)]
        self._kind(node).spread(node, cid)
        self.tx.built[cid] = node
        return made

    # --- puts ---

    def _leave(self, stored: bytes, name: bytes) -> None:
        """Note what goes with a root record: its spread containers and shared records."""
        if stored[1] & 4:
            parts = records.parse(name, stored)
            for head, link in links_of(parts):
                if head == records.EXTERNAL:
                    other = records.read_external(link)[3]
                    if other[:1] == pages.SHARED:
                        self.references[other] -= 1
                        self.suspects[other] = None
                else:
                    self.gone.append(int.from_bytes(link, "big"))

    def _refer(self, new: Iterable[bytes], old: Iterable[bytes]) -> None:
        self.references.update(set(new) - set(old))
        gone = set(old) - set(new)
        self.references.subtract(gone)
        self.suspects |= dict.fromkeys(gone)

    def _put_cells(self) -> list[bytes]:
        engine = self.tx.engine
        names: list[bytes] = []
        for name, cell in self.tx.cells.items():
            if cell is None:
                engine.delete(name)
            else:
                engine.put(name, cell if isinstance(cell, bytes) else cell.to_bytes())
            if name[:1] in (pages.CELL, GROUP):
                names.append(name)
            elif name[:1] == COUNTER and cell is None:
                # for all that others have loaded of the group
                names.append(GROUPED + name[1:])
        return names

    def _put_counts(self) -> list[bytes]:
        """Count the references to shared records; those without any go."""
        engine = self.tx.engine
        names: list[bytes] = []
        suspects = self.suspects
        lost: set[bytes] = set()
        while self.references or suspects:
            if not self.references:
                # what refers to itself in a circle is not found by counting
                for other, kept in (Circle(engine, suspects.popitem()[0]).lost() or {}).items():
                    names.append(other)
                    lost.add(other)
                    self._delete_shared(other, kept)
                continue
            name, change = self.references.popitem()
            stored = engine.get(name) if change and name not in lost else None
            if stored is None:
                continue
            count = (records.count_of(stored) or 0) + change
            names.append(name)
            if count > 0:
                engine.put(name, records.with_count(name, stored, count))
                self.counts[name] = count
            else:
                self._delete_shared(name, stored)
        return names

    def _delete_shared(self, name: bytes, stored: bytes) -> None:
        self.counts[name] = 0
        self.tx.engine.delete(name)
        self._leave(stored, name)

    # --- afterwards ---

    def install(self) -> None:
        """Let the tracker know the records as they are now on disk."""
        tracker = self.tracker
        tx = self.tx
        for name, cell in tx.cells.items():
            if name[:1] in (pages.CELL, GROUP):
                tracker.cells[name] = cell
            elif name[:1] == COUNTER and cell is None:
                tracker.forget_space(GROUPED + name[1:], self.before)
        for record, one in self.encoded.items():
            if one.dead:
                tracker.let_go(one.dead, record, self.before, False)
            for node in one.dead:
                record.dismiss(node)
            record.order, record.kept = tx.orders.get(record, (None, None))
            record.links = one.links
            record.outdated = False
            if record.root is not record:
                tracker.live[record.name] = record
                tracker.remember(record)
        for record in self.dropped:
            tracker.unload(record)
            record.detach(self.before)
        for name, count in self.counts.items():
            record = tracker.live.get(name)
            if record is not None and count:
                record.count = count
            elif record is not None:
                tracker.forget(record, self.before)
        for cid, node in tx.built.items():
            tracker.spreads[cid] = node


def _can_spread(node: Node) -> bool:
    """Tell whether a container can be divided: its keys have to be such as bytes can tell apart."""
    content = node.work
    kind = type(content)
    if node.kind.head(node) not in _WHOLE or len(content) < 2:
        return False
    return kind is list or all(entry_form(key) is not None for key in content)


_WHOLE = (records.LIST, records.DICT, records.SET)


def restore(transaction: Any) -> None:
    """Put the nodes of all records back where they were before a commit that has failed."""
    kept = transaction.rearranged
    for record, (nodes, externals, free, top, base) in kept.items():
        record.nodes = nodes
        record.externals = externals
        record.free = free
        record.top = top
        record.base = base
        record.order = None
    for record in kept:
        record.faces = {}
        record.forget_names()
        for slot, node in record.nodes.items():
            node.record = node.home = record
            node.slot = slot
            node.row = node.fragment = None
            record.faces[id(node.face)] = (2 * slot + 1, node.face)
        for node, slot in record.externals.items():
            record.faces[id(node.face)] = (2 * slot + 1, node.face)
    kept.clear()
