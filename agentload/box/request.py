"""What an engine works on: requests, the steps that serve them, and what is counted."""

from typing import Final

from agentload.box.kv import Ids, Lease

NEW: Final = 0  # sent nowhere yet
ARRIVING: Final = 1
WAITING: Final = 2
RUNNING: Final = 3
DONE: Final = 4


class Request:
    """What the engine knows of a call: how many tokens go in, how many come out, and which blocks they make.

    `ids` are the identities of the full blocks of prompt and output together (`agentload.box.words.identities`); they
    may stop early, and what lies beyond is never found in the cache again.
    """

    __slots__ = (
        "admitted",
        "arrival",
        "cached",
        "computed",
        "generated",
        "hidden",
        "ids",
        "lease",
        "loaded",
        "output",
        "preempted",
        "prompt",
        "replica",
        "restored",
        "seat",
        "state",
        "tag",
        "until",
    )

    def __init__(self, prompt: int, output: int, ids: Ids, tag: object = None) -> None:
        if prompt < 1 or output < 1:
            raise ValueError(f"a request needs at least one token in and one out, got {prompt} and {output}")
        self.prompt = prompt
        self.output = output
        self.ids = ids
        self.tag = tag  # the caller's own
        self.arrival = 0.0  # seconds, when it reached the queue
        self.admitted = 0.0  # seconds, when its first step began
        self.replica = 0  # number of the one that answers it
        self.cached = -1  # prompt tokens found in the cache when it was first admitted, the host's among them
        self.restored = 0  # of those, the ones that were brought back from the host
        self.computed = 0  # tokens whose keys and values are in the cache, or will be when the step ends; decode apart
        self.generated = 0  # tokens, as of the last time that `finish` named it
        self.hidden = False  # its tokens are not for the client: the first leg of one that is answered elsewhere
        self.loaded = 0  # tokens that come from another replica and need not be computed
        self.preempted = 0  # times it had to start over
        self.seat = 0  # number of its admission
        self.state = NEW
        self.until = -1  # the cache's tick of its last token, while it decodes
        self.lease: Lease | None = None

    @property
    def known(self) -> int:
        """Tokens of prompt and of what has been generated."""
        return self.prompt + self.generated


class Step:
    """One iteration, or `count` alike in a row: who takes part, and when it ends (seconds)."""

    __slots__ = (
        "attention", "begun", "context", "count", "decodes", "end", "extra", "growth", "joined", "loads",
        "over", "prefill", "rate", "restored", "start",
    )  # fmt: skip

    def __init__(self, start: float) -> None:
        self.start = start
        self.end = start  # of the last
        self.count = 1
        self.prefill = 0  # P: prompt tokens computed
        self.decodes = 0  # D: requests that decode
        self.context = 0  # K: tokens of context they read, in the first iteration; each later one reads D more
        self.attention = 0.0  # A: sum over chunks of n·(context before + n/2)
        self.restored = 0  # tokens brought back from the host, for so many prompts:
        self.loads = 0
        self.joined: list[Request] = []  # had tokens of their prompt computed
        self.begun = self.over = 0  # `start` and `end` in the units of `agentload.box.pace`
        self.extra = 0  # of that time, what knows no noise
        self.rate = self.growth = 0  # how long the first takes without noise, and how much longer each later one

    def take(self, request: Request, n: int) -> None:
        """Compute `n` more tokens of a prompt."""
        self.prefill += n
        self.attention += n * (request.computed + 0.5 * n)
        request.computed += n
        self.joined.append(request)


class Counts:
    """What an engine counts over its life, as vLLM's /metrics does: tokens unless said otherwise."""

    __slots__ = (
        "cached", "generated", "hits", "host_hits", "host_queries", "preemptions", "prompt", "queries", "restored",
        "steps",
    )  # fmt: skip

    def __init__(self) -> None:
        self.prompt = 0  # of requests that got their first token
        self.cached = 0  # of `prompt`
        self.restored = 0  # of `cached`, those that came from the host
        self.generated = 0
        self.queries = 0  # looked up in the prefix cache, when first admitted
        self.hits = 0  # of `queries`
        self.host_queries = 0  # looked up in the host's memory: what was not among the hits, where there is a host
        self.host_hits = 0  # of those
        self.preemptions = 0  # times
        self.steps = 0  # iterations

    def add(self, other: "Counts") -> None:
        """Count what another has counted, too."""
        self.prompt += other.prompt
        self.cached += other.cached
        self.restored += other.restored
        self.generated += other.generated
        self.queries += other.queries
        self.hits += other.hits
        self.host_queries += other.host_queries
        self.host_hits += other.host_hits
        self.preemptions += other.preemptions
        self.steps += other.steps
