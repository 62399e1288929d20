"""An agent of one's own: `agentload run --agent examples/my_agents.py:triage`."""

from agents.chain import Chat, Context, Message, Outcome, ToolCall, Wait


def triage(rng):
    """Read an issue, look for others like it, label it; then wait for the next one."""
    key = int(rng.integers(2**60))  # same key, same text: this issue's own
    issue = Message("user", int(rng.lognormal(6.0, 0.8)) + 20, key=key)
    context = Context([Message("system", 900, key=1), issue])
    for step in range(1, int(rng.integers(2, 6))):
        reply = yield Chat(context, max_tokens=120)
        if not reply.ok:
            return Outcome("failed")
        context.append(reply.message())
        (found,) = yield [ToolCall("search_issues", seconds=float(rng.exponential(0.2)), tokens=300)]
        context.append(Message("user", found.tokens, key=key + step))
    reply = yield Chat(context, max_tokens=40)
    yield Wait(0.5)
    return Outcome("done", reply.output_tokens, intents=1)
