"""Recorded sessions played against an endpoint, without a spec: the driver, the client and the records, all real."""

import asyncio
from collections.abc import Sequence

from agentload.session import Clock, Lane, World, run_agent
from agentload.spec import Retry
from agents.endpoint import Endpoint, Features, Timeouts
from agents.replay import Pace, Way, replay
from agents.script import Session
from agents.text import Calibration, Encoder, Room
from agents.wire import Wire
from collectors.load import Run, from_records

BOX = Calibration(per_word=1.0, per_message=5.0, per_system=5.0, per_request=3.0, counted=True)


def play(url: str, sessions: Sequence[Session], pace: Pace, calibration: Calibration = BOX, context: int = 10**7,
         model: str = "box", at_once: bool = True) -> Run:  # fmt: skip
    """The records of the sessions, played side by side or one after the other."""
    records: list[object] = []

    async def main() -> None:
        clock = Clock()
        endpoint = Endpoint(url, model, timeouts=Timeouts(first_token=300))
        client = Wire(endpoint, Features(), Encoder(calibration), clock.now, "replay", itl=False)
        world = World(lambda tenant, session: Lane(client, Retry(attempts=1)), clock, records.append, seed=0)
        room = Room(context, calibration)
        agents = [replay(session, pace, room, Way(1)) for session in sessions]
        if at_once:
            await asyncio.gather(*(run_agent(agent, i, "", clock.now(), world) for i, agent in enumerate(agents)))
        else:
            for i, agent in enumerate(agents):
                await run_agent(agent, i, "", clock.now(), world)
        await client.close()

    asyncio.run(main())
    return from_records({}, records)  # type: ignore[arg-type]  # records they are
