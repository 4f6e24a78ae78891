"""What a disk may hold after the power failed, rebuilt from a record of writes and syncs.

The model: a sync puts on disk what was written before it. What was not synced may be there or not,
each sector of 512 bytes by itself and in any of its versions, so writes may be dropped, reordered
and torn. The file may have any length between the synced one and the last one, and what was not
written in new space is zeros or what some other file left there. A sector is written whole, but for
a write smaller than that (the head of a commit), which may also be there from its front to a point.
A file whose directory was not synced may have no name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from recording import Event, apply

SECTOR = 512
Sectors = list[tuple[int, bytes]]


class Disk:
    """A file on a disk, and what the operating system holds back."""

    def __init__(self) -> None:
        self.durable = bytearray()  # on the disk, whatever happens
        self.cache = bytearray()  # what processes read
        self.pending: list[Sectors] = []  # what may be on the disk, by write
        self.named = False  # for processes
        self.found = False  # by its name, whatever happens

    def do(self, event: Event) -> None:
        """Let an event of the record happen."""
        apply(event, self.cache)
        if event.kind == "W":
            self.pending.append(_sectors(event, self.cache))
        elif event.kind == "S":
            self._settle(_sectors(event, self.cache))
        elif event.kind == "F":
            self.durable = bytearray(self.cache)
            self.pending.clear()
        elif event.kind == "N":
            self.named = True
        elif event.kind == "D":
            self.found = self.named

    def _settle(self, sectors: Sectors) -> None:
        """Put sectors on the disk; older versions of them can no longer come there."""
        for number, data in sectors:
            _put(self.durable, number, data)
        settled = {number for number, _ in sectors}
        self.pending = [
            [sector for sector in write if sector[0] not in settled] for write in self.pending
        ]

    def after_kill(self, event: Event, dice: random.Random) -> bytes | None:
        """Return what is there when the process alone died while `event` was going on."""
        if not self.named:
            return None
        content = bytearray(self.cache)
        apply(_cut(event, 4096 * dice.randrange(9)), content)
        return bytes(content)

    def after_power_loss(self, event: Event, dice: random.Random) -> bytes | None:
        """Return one of the contents that are possible when the power failed during `event`."""
        if not self.named or (not self.found and dice.random() < 0.3):
            return None
        if event.kind in "WS" and len(event.data) < SECTOR and dice.random() < 0.2:
            event = _cut(event, 8 * dice.randrange(len(event.data) // 8 + 1))
        cache = bytearray(self.cache)
        apply(event, cache)
        pending = [*self.pending, _sectors(event, cache)] if event.kind in "WS" else self.pending
        chosen = _choose([write for write in pending if write], dice)
        end = max([len(self.durable), *(number * SECTOR + len(data) for number, data in chosen)])
        anywhere = dice.randrange(len(self.durable), len(cache) + 1)
        length = dice.choice([end, len(cache), anywhere])
        filler = dice.choice([b"\0", b"\xa5"])
        content = self.durable + filler * (len(cache) - len(self.durable))
        for number, data in chosen:
            _put(content, number, data)
        return bytes(content[:length])


def _cut(event: Event, size: int) -> Event:
    """Return a write of which only the first bytes were done."""
    if event.kind not in "WS":
        return event
    return Event(event.kind, event.inode, event.place, event.data[:size])


def _sectors(event: Event, cache: bytearray) -> Sectors:
    """Return the sectors that a write has touched, as they are after it."""
    numbers = range(event.place // SECTOR, -(-(event.place + len(event.data)) // SECTOR))
    return [(number, bytes(cache[number * SECTOR : (number + 1) * SECTOR])) for number in numbers]


def _put(content: bytearray, number: int, data: bytes) -> None:
    content.extend(bytes(max(0, number * SECTOR - len(content))))
    content[number * SECTOR : number * SECTOR + len(data)] = data


def _choose(pending: list[Sectors], dice: random.Random) -> Sectors:
    """Choose what came to the disk in one of several ways; later versions win."""
    sectors = [sector for write in pending for sector in write]
    if not sectors:
        return []
    way, share = dice.randrange(8), dice.random()
    if way == 0:
        return []
    if way == 1:
        return sectors
    if way == 2:  # writes in any order
        return [sector for write in pending if dice.random() < share for sector in write]
    if way == 3:  # sectors in any order
        return [sector for sector in sectors if dice.random() < share]
    if way == 4:  # all but one write
        missing = dice.randrange(len(pending))
        return [s for at, write in enumerate(pending) if at != missing for s in write]
    if way == 5:  # all but one sector
        missing = dice.randrange(len(sectors))
        return sectors[:missing] + sectors[missing + 1 :]
    if way == 6:  # the last write before all others
        return pending[-1]
    return sectors[: dice.randrange(len(sectors) + 1)]  # in order, up to a point


def crash_points(count: int, states: int, dice: random.Random) -> Iterator[int]:
    """Yield the events at which the power fails, in order, each as often as every other or once
    more.
    """
    extra = set(dice.sample(range(count), states % count))
    for at in range(count):
        for _ in range(states // count + (at in extra)):
            yield at
