"""What waits for a client: bounded, in order, and honest about what is missing."""

from __future__ import annotations

import asyncio

from gary.effects import Reply
from gary.replies import ITEM_BYTES, Replies

ROOM_FOR_TEN = 10 * (ITEM_BYTES + 10)


def _line(number: int) -> Reply:
    return Reply(7, {"line": f"{number:010}"}, last=False)


async def _all(replies: Replies) -> list[object]:
    """The numbers of the lines, and how many are said to be lost, up to the last reply."""
    found: list[object] = []
    while not (reply := await replies.get()).last:
        found.append(int(str(reply.item["line"])) if "line" in reply.item else reply.item)
    return found


async def test_what_fits_comes_in_order() -> None:
    replies = Replies(7, ROOM_FOR_TEN)
    for number in range(9):
        replies.put(_line(number))
    replies.put(Reply(7))
    assert await _all(replies) == list(range(9))


async def test_of_too_much_the_newest_stays_and_the_gap_is_told() -> None:
    replies = Replies(7, ROOM_FOR_TEN)
    for number in range(1000):
        replies.put(_line(number))
    replies.put(Reply(7))
    first, *rest = await _all(replies)
    assert first == {"lost": 1000 - len(rest)}
    assert rest == list(range(1000 - len(rest), 1000))
    assert len(rest) in (9, 10)


async def test_an_item_larger_than_all_room_is_lost_and_the_end_never() -> None:
    replies = Replies(7, ROOM_FOR_TEN)
    replies.put(Reply(7, {"line": "x" * ROOM_FOR_TEN}, last=False))
    replies.put(Reply(7, {"line": "y" * ROOM_FOR_TEN}))
    assert await replies.get() == Reply(7, {"lost": 1}, last=False)
    assert (await replies.get()).last


async def test_whoever_feeds_it_waits_until_half_of_it_is_read() -> None:
    replies = Replies(7, ROOM_FOR_TEN)
    await replies.room()
    for number in range(10):
        replies.put(_line(number))
    feeding = [asyncio.create_task(replies.room()) for _ in range(2)]
    for _ in range(4):
        await replies.get()
        await asyncio.sleep(0)
        assert not any(task.done() for task in feeding)
    await replies.get()
    await asyncio.gather(*feeding)


async def test_whoever_reads_waits_for_the_next() -> None:
    replies = Replies(7)
    reading = asyncio.create_task(replies.get())
    await asyncio.sleep(0)
    replies.put(_line(1))
    assert await reading == _line(1)
