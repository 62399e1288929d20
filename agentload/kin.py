"""Sub-agents in virtual time: started, waited for, and what follows when one of them has ended."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentload.actors import Actor, Joining
from agents.chain import Join, Outcome, Spawn

if TYPE_CHECKING:
    from agentload.virtual import World


def spawn(world: "World", actor: Actor, ask: Spawn) -> list[Outcome] | None:
    """Start sub-agents; what became of them, where that need not be waited for."""
    tally, first, started = actor.tally, len(actor.children), list[Actor]()
    for number, agent in enumerate(ask.agents, first):
        if actor.family[0] >= world.spec.max_agents_per_session:
            agent.chain.close()
            tally.refused += 1
            actor.children.append(Outcome("refused"))
            continue
        path = f"{tally.agent}.{number}" if tally.agent else str(number)
        started.append(world.start(agent, tally.session, path, actor, number))
        actor.children.append(started[-1])
    tally.children += len(started)
    actor.running += len(started)
    for child in started:
        world.resume(child, None)
    return waiting(world, actor, range(first, len(actor.children)), ask)


def join(world: "World", actor: Actor, ask: Join) -> list[Outcome] | None:
    """Have an agent wait for some it has started, all if none is named; what became of them, once that is known."""
    return waiting(world, actor, ask.agents or range(len(actor.children)), ask)


def waiting(world: "World", actor: Actor, numbers: Sequence[int], ask: Spawn | Join) -> list[Outcome] | None:
    """Have an agent wait for those numbers, as it asks."""
    actor.joining = joining = Joining(numbers, ask.wait, ask.cancel, world.now)
    joining.left = {n for n in numbers if isinstance(actor.children[n], Actor)}
    return joined(world, actor, joining)


def joined(world: "World", actor: Actor, joining: Joining) -> list[Outcome] | None:
    """What an agent that waits for sub-agents is answered with; None while it has to wait."""
    if joining.left and (joining.wait is None or sum(actor.became(n).ok for n in joining.numbers) < joining.wait):
        return None
    actor.joining = None
    actor.tally.join += world.now - joining.start
    for number in sorted(joining.left) if joining.cancel else ():
        child = actor.children[number]
        if isinstance(child, Actor):
            world.cancel(child, Outcome("cancelled"))
    return [actor.became(number) for number in joining.numbers]


def bereft(world: "World", parent: Actor, number: int, outcome: Outcome) -> None:
    """One of an agent's sub-agents has ended: the agent goes on, ends itself, or waits for more."""
    parent.children[number] = outcome
    parent.running -= 1
    joining = parent.joining
    if joining is not None:
        joining.left.discard(number)
        became = joined(world, parent, joining)
        if became is not None:
            parent.due = world.now
            world.resume(parent, became)
    elif parent.outcome is not None and not parent.running:
        world.leave(parent)
