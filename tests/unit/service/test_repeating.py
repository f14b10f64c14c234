"""Work that is repeated while the service runs."""

import asyncio

from extproc.service.repeating import repeating


def test_work_is_repeated_until_the_end():
    calls = []

    async def main():
        async with repeating(lambda: calls.append(1), 0.001):
            while len(calls) < 3:
                await asyncio.sleep(0.001)
        done = len(calls)
        await asyncio.sleep(0.01)
        assert len(calls) == done

    asyncio.run(main())


def test_an_error_ends_the_work_alone_and_is_logged(caplog):
    async def main():
        async with repeating(lambda: 1 / 0, 0.001):
            await asyncio.sleep(0.02)

    asyncio.run(main())
    assert len(caplog.records) == 1
    assert "ZeroDivisionError" in caplog.text
