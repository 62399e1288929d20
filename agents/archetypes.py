"""Who the agents are: the built-in archetypes, with the source beside each number.

Sources: [kv] kv-cache-tester, 710 recorded Claude Code sessions (callanjfox/kv-cache-tester @ 94f6046, computed);
[TraceLab] uw-syfi/TraceLab @ 0b8a262, 4,265 Claude Code and Codex sessions; [TRT] TensorRT-LLM tech blog 27, 730 traces
of four agents; [AgentX] SemiAnalysis InferenceX issue 1632; [tau] tau-bench gpt-4o airline trajectories, 200 episodes,
tokens = characters / 4; [Azure] Azure LLM inference trace 2023, conversations; [Mooncake] Mooncake FAST'25 conversation
trace; [ServeGen] alibaba/ServeGen @ f891d11, deepseek-r1; [quoted] "How we built our multi-agent research system",
Anthropic, June 2025; [ours] an assumption. Token counts are per call unless said otherwise; LogNormal is (median, sigma
of the logarithm).
"""

from msgspec import structs

from agents.draws import Draw, Geometric, LogNormal, Mixture, Quantiles, Tailed, Uniform, Weibull
from agents.kind import Archetype, PythonTool, SimulatedTool, Variant
from agents.schedule import Schedule

__all__ = ["ARCHETYPES", "Archetype", "PythonTool", "SimulatedTool", "Variant"]

SHELL = SimulatedTool(  # [TraceLab] shares of calls and quantiles of time by kind of tool, also below
    name="shell",
    description="Run a shell command and return its output.",
    parameters={"command": "the command line"},
    seconds=LogNormal(0.85, 2.4, high=3_600.0),  # p50 0.85 s, p99 235 s; mean 14 s of the 18 measured
    weight=0.76,
)
EDIT = SimulatedTool(
    name="edit_file",
    description="Replace a piece of a file.",
    parameters={"path": "the file", "old": "text to replace", "new": "replacement"},
    seconds=LogNormal(0.095, 1.0, high=10.0),
    tokens=LogNormal(120, 0.6, low=8),
    weight=0.11,
)
READ = SimulatedTool(
    name="read_file",
    description="Read a file or search in it.",
    parameters={"path": "the file"},
    seconds=LogNormal(0.036, 2.65, high=600.0),  # p50 of Read; mean of all that reads and searches 1.2 s
    tokens=LogNormal(900, 1.0, low=8, high=20_000),
    weight=0.10,
)
WEB = SimulatedTool(
    name="web_search",
    description="Search the web.",
    parameters={"query": "what to look for"},
    seconds=LogNormal(12.0, 1.2, high=600.0),  # mean 24 s
    tokens=LogNormal(1_500, 0.8, low=8, high=20_000),
    weight=0.03,
)

OUTPUT_OF_CODERS = Mixture(
    [LogNormal(181, 0.51, low=1, high=16_000), LogNormal(481, 1.05, low=1, high=16_000)], [0.63, 0.37]
)
"""[kv] output per call p10 105, p50 216, p90 899, p99 3,663, mean 439: two lognormals, fitted to its quantiles."""

GROWTH_OF_CODERS = Tailed(600, 1.0, above=4_000, share=0.1, alpha=1.5, low=30, high=61_000)
"""[kv] new tokens per later call p25 372, p50 705, p75 1,672, p90 4,064; Hill index of the top 1 % 1.5."""

REASONING_OF_CODERS = Mixture([0.0, 0.3], [0.55, 0.45])
"""[kv] turns with thinking answer 260 tokens in the median, others 181, all 216: 45 % think, a third of the reply."""

CODER = Archetype(
    about="A coding agent (Claude Code, Codex): reads, edits and runs things in a long, growing conversation. "
    "Imitates the sessions of kv-cache-tester, ideal prefix hit 96 %; gaps of people inside a session are left out.",
    system_tokens=2_800,  # [kv] system p50
    schema_tokens=12_300,  # [kv] tool schema p50
    # [kv] 55 % of sessions begin afresh around 18.5k, 45 % are resumed at 40k-850k: those are shorter, and the largest
    # have a window beyond 200k. What the preamble does not hold of the first input is the task.
    task_tokens=LogNormal(3_400, 0.8, high=25_000),
    steps=LogNormal(39, 1.16, low=1, high=1_178),  # [kv] calls of all sessions; of each sort below
    variants=[
        Variant(  # 393 of 710
            weight=0.55,
            steps=Weibull(1.15, 92.0, low=1.0, high=1_178.0),  # p10 12, p50 68, p90 176, mean 87
            compact_at=Mixture([LogNormal(150_000, 0.08), LogNormal(300_000, 0.3)], [0.93, 0.07]),
        ),
        Variant(  # 181, first input LN(79k, 0.31)
            weight=0.26,
            task_tokens=LogNormal(64_000, 0.38, low=25_000),
            steps=LogNormal(36, 1.095, low=1, high=700),
            opening_tokens=LogNormal(1_000, 1.5, low=30, high=61_000),
            compact_at=Mixture([LogNormal(150_000, 0.08), LogNormal(300_000, 0.1)], [0.8, 0.2]),
        ),
        Variant(  # 136, first input around 161k and 364k
            weight=0.19,
            task_tokens=Mixture([LogNormal(145_000, 0.19), LogNormal(349_000, 0.38)], [0.35, 0.65]),
            steps=LogNormal(16, 1.0, low=1, high=400),
            opening_tokens=LogNormal(900, 1.4, low=30, high=61_000),
            compact_at=LogNormal(800_000, 0.2),
        ),
    ],
    growth_tokens=GROWTH_OF_CODERS,
    output_tokens=OUTPUT_OF_CODERS,
    reasoning=REASONING_OF_CODERS,
    opening_steps=4,  # [kv] median input by turn: 19.0k, 25.5k, 31.1k, … then about 1k a turn
    opening_tokens=LogNormal(1_250, 1.6, low=30, high=61_000),
    tool_calls=Mixture([1.0, 2.0, 4.0], [0.86, 0.11, 0.03]),  # [TraceLab] mean 1.2, p50 1, p90 2, p99 4
    tools=[SHELL, EDIT, READ, WEB],
    children=Mixture([0.0, Uniform(1.5, 6.0)], [0.976, 0.024]),  # [kv] 2.4 % of sessions, 3.7 in those
    child="explorer",
    at_limit="compact",  # [TraceLab] 9.7 % of sessions compact; [kv] a quarter, most at 150k of a 200k window
    compact_to=LogNormal(0.3, 0.6, low=0.12, high=0.85),  # [kv] p10 0.16, p50 0.30, p90 0.81
    rewrite=0.0105,  # [kv] of later calls that do not shrink lose more than 5 % of the last prompt's blocks
    rewrite_keep=Uniform(0.05, 0.6),  # [kv] lost: p10 0.43, p50 0.78, p90 0.95
    reset=0.001,  # [kv] contexts that shrink far below any limit: a seventh of all that shrink
    reset_to=Uniform(0.15, 0.8),
    system_text="You are a coding agent. Use the tools to inspect and change the project, then report what you did.",
    task_texts=["Find out why the test fails and fix it.", "Read the file, run the tests and explain the result."],
)

CODER_CHURN = structs.replace(
    CODER,
    about="The coding agent of a corpus whose ideal prefix hit is 86 %, not 96 % [AgentX, no-subagents, 051226]: its "
    "harness changes the history more often. How often, and where, is not published; both are set to give that figure.",
    rewrite=0.18,  # [ours] calibrated: hit 0.86
    children=0.0,
)

EXPLORER = Archetype(
    about="A sub-agent that looks around for its parent. Imitates the 63 sub-agents of kv-cache-tester, most of them "
    "of type Explore.",
    system_tokens=1_100,  # [kv] sub-agents: system 1.0-2.3k, tools 7.4-7.8k
    schema_tokens=7_400,
    task_tokens=LogNormal(1_800, 0.35, low=200, high=6_000),  # [kv] first input p50 10.3k, p90 12.3k
    steps=LogNormal(11, 0.34, low=1, high=24),  # [kv] p50 11, p90 17, max 24
    growth_tokens=LogNormal(2_200, 0.8, low=100, high=30_000),  # [kv] from 10k to 40k and more over the run
    output_tokens=LogNormal(235, 0.63, low=1, high=8_000),  # [kv] p50 235, p90 529
    reasoning=REASONING_OF_CODERS,
    tool_calls=Mixture([1.0, 2.0, 4.0], [0.7, 0.2, 0.1]),  # [ours]
    tools=[READ, structs.replace(SHELL, weight=0.1)],
    at_limit="compact",
    task_texts=["Find where this is used, and report the files and lines."],
)

ORCHESTRATOR = Archetype(
    about="A lead agent that hands its work to explorers, several at a time and more than once, and merges what they "
    "say. Its own calls imitate a coding agent's; how often it delegates is assumed.",
    system_tokens=3_700,  # [kv] lead 15-25k
    schema_tokens=12_300,
    task_tokens=LogNormal(3_000, 0.8, low=100, high=15_000),
    steps=LogNormal(10, 0.5, low=2, high=60),  # [quoted] as its children's
    growth_tokens=GROWTH_OF_CODERS,
    output_tokens=OUTPUT_OF_CODERS,
    reasoning=REASONING_OF_CODERS,
    tool_calls=1.0,
    tools=[SHELL, EDIT, READ, WEB],
    children=Mixture([2.0, 3.0, 4.0, Uniform(5.0, 10.0)], [0.4, 0.25, 0.25, 0.1]),  # [quoted] 1, 2-4, more than 10
    child="explorer",
    spawns=Mixture([1.0, 2.0], [0.7, 0.3]),  # [ours]
    at_limit="compact",
    task_texts=["Plan the change, have its parts looked into, then write the plan down."],
)

REASONING_OF_RESEARCHERS = Quantiles([0.0, 0.35, 0.52, 0.63, 0.72, 0.79, 0.84, 0.88, 0.92, 0.96, 1.0])
"""[ServeGen] share of output of the DeepSeek-R1 API's mix: mean 0.70, p50 0.79, p90 0.96."""

RESEARCHER = Archetype(
    about="Deep research: a supervisor plans, sends 2-4 searchers out, rewrites what it knows and reports. Imitates "
    "the Open Deep Research traces of TensorRT-LLM: input p50 6.2k, output p50 632, ideal hit 48 %.",
    system_tokens=1_200,  # [ours] 1.2k + 0.8k of tools: the shared part of a 2-6k first input
    schema_tokens=800,
    task_tokens=LogNormal(1_200, 0.6, low=50, high=8_000),
    steps=LogNormal(6, 0.4, low=2, high=20),  # [ours]
    growth_tokens=LogNormal(1_400, 0.8, low=100, high=20_000),
    output_tokens=LogNormal(632, 0.8, low=16, high=8_000),  # [TRT] p50 632
    reasoning=REASONING_OF_RESEARCHERS,
    tool_calls=1.0,
    tools=[structs.replace(WEB, weight=1.0)],
    children=Uniform(1.5, 4.5),  # [quoted] 2-4; [TRT] 4 parallel branches
    child="searcher",
    rewrite=0.55,  # [ours] "context rewritten": set to give [TRT] ideal hit 0.478, with the searcher's
    rewrite_keep=Uniform(0.0, 0.4),
    max_steps=30,
    task_texts=["Compare the three most used approaches and say where each fails."],
)

SEARCHER = Archetype(
    about="A researcher's sub-agent: searches the web, reads, and keeps notes instead of pages.",
    system_tokens=900,
    schema_tokens=600,
    task_tokens=LogNormal(400, 0.5, low=50, high=3_000),  # [ours]
    steps=LogNormal(12, 0.2, low=4, high=20),  # [quoted] 10-15 tool calls
    growth_tokens=LogNormal(1_050, 0.7, low=100, high=20_000),
    output_tokens=LogNormal(632, 0.8, low=16, high=8_000),  # [TRT]
    reasoning=REASONING_OF_RESEARCHERS,
    tool_calls=1.0,
    tools=[structs.replace(WEB, weight=1.0)],  # [TraceLab] web about 24 s on average
    rewrite=0.55,  # [ours] as the researcher's
    rewrite_keep=Uniform(0.0, 0.4),
    reset=0.15,  # [ours] pages become notes; keeps input near [TRT] p50 6.2k
    reset_to=Uniform(0.3, 0.6),
    task_texts=["Find sources on this question, and note what each says."],
)

SUPPORT = Archetype(
    about="A customer-support agent: a person writes, the agent looks things up and acts in a database. Imitates the "
    "tau-bench airline trajectories; how long the person takes and what the database costs are assumed.",
    system_tokens=900,  # [tau] 1.5k of system prompt with tools
    schema_tokens=640,
    task_tokens=LogNormal(60, 0.5, low=8, high=400),  # [tau] first input is nearly all preamble
    turns=LogNormal(7, 0.35, low=1, high=20),  # [tau] user turns p50 7, p90 11
    turn_tokens=LogNormal(40, 0.5, low=4, high=300),  # [tau] growth 150-200 a step, tool results 167
    think_seconds=Uniform(10.0, 60.0),  # [ours]
    steps=Mixture([1.0, 2.0, 3.0], [0.5, 0.3, 0.2]),  # [tau] 12.3 calls over 7 turns, 5 tool calls at p50
    growth_tokens=LogNormal(230, 0.5, low=20, high=2_000),  # [tau] reply 53 + tool result 167
    output_tokens=LogNormal(53, 0.72, low=1, high=600),  # [tau] p50 53, p90 133, mean 71
    reasoning=Uniform(0.0, 0.3),  # [ours]
    tool_calls=1.0,  # [tau] never parallel
    tools=[
        SimulatedTool(
            name="get_reservation",
            description="Look up a reservation.",
            parameters={"reservation_id": "six letters"},
            seconds=Uniform(0.01, 0.3),  # [ours] a database
            tokens=LogNormal(167, 0.5, low=8, high=2_000),  # [tau]
            weight=0.6,
        ),
        SimulatedTool(
            name="update_reservation",
            description="Change or cancel a reservation.",
            parameters={"reservation_id": "six letters", "change": "what to do"},
            seconds=Uniform(0.01, 0.3),
            tokens=LogNormal(120, 0.5, low=8, high=2_000),
            weight=0.4,
        ),
    ],
    max_steps=30,
    system_text="You are an airline's support agent. Look things up with the tools before you answer.",
    task_texts=["I want to cancel my reservation EHGLP3.", "Can I move my flight to Friday?"],
)

BROWSER = Archetype(
    about="An agent that drives a web browser: acts, gets the page as text, acts again; old pages are dropped from its "
    "history, so caches lose the tail at nearly every step. No measured corpus was found: all numbers are ours.",
    system_tokens=1_500,
    schema_tokens=2_500,
    task_tokens=LogNormal(120, 0.6, low=16, high=1_000),
    steps=LogNormal(15, 0.5, low=2, high=60),
    growth_tokens=LogNormal(5_000, 0.6, low=300, high=30_000),  # the page, as an accessibility tree
    output_tokens=LogNormal(120, 0.6, low=16, high=1_500),  # a thought and an action
    tool_calls=1.0,
    tools=[
        SimulatedTool(
            name="browser_action",
            description="Click, type, scroll or open a page; returns the page.",
            parameters={"action": "what to do", "target": "the element or address"},
            seconds=LogNormal(2.0, 0.7, low=0.2, high=30.0),
            tokens=LogNormal(5_000, 0.6, low=300, high=30_000),
            failure=0.08,
        )
    ],
    reset=0.3,
    reset_to=Uniform(0.25, 0.5),
    task_texts=["Find the cheapest direct flight on Friday and stop before paying."],
)

BATCH = Archetype(
    about="A scheduled agent, as cron would start it: wakes every minute, looks at a dashboard, mostly says that all "
    "is well. No measured corpus was found: all numbers are ours.",
    system_tokens=1_200,
    schema_tokens=800,
    task_tokens=LogNormal(400, 0.3, low=50, high=3_000),
    turns=5.0,
    turn_tokens=LogNormal(400, 0.3, low=50, high=3_000),  # what has changed
    schedule=Schedule(every=60.0, jitter=Uniform(0.0, 2.0)),  # all at the full minute, as cron starts things
    steps=Mixture([1.0, 2.0, 4.0], [0.6, 0.3, 0.1]),
    growth_tokens=LogNormal(700, 0.5, low=50, high=5_000),
    output_tokens=LogNormal(80, 0.6, low=8, high=1_000),
    tool_calls=1.0,
    tools=[
        SimulatedTool(
            name="query_metrics",
            description="Read a metric of the monitored system.",
            parameters={"expression": "the query"},
            seconds=LogNormal(0.4, 0.8, high=20.0),
            tokens=LogNormal(500, 0.5, low=20, high=4_000),
        )
    ],
    task_texts=["Check whether the service is healthy; report anything unusual."],
)

RAG = Archetype(
    about="Retrieval-augmented generation: one search, one answer from what it found. Sizes are ours: five passages of "
    "about 500 tokens; the answer is as long as [Azure] conversations'.",
    system_tokens=500,
    schema_tokens=150,
    task_tokens=LogNormal(60, 0.8, low=8, high=2_000),
    steps=2.0,  # write the query, answer
    growth_tokens=LogNormal(2_600, 0.3, low=500, high=8_000),
    output_tokens=LogNormal(129, 0.93, low=1, high=4_000),
    tool_calls=1.0,
    tools=[
        SimulatedTool(
            name="retrieve",
            description="Search the documents.",
            parameters={"query": "what to look for"},
            seconds=LogNormal(0.15, 0.6, low=0.01, high=5.0),
            tokens=LogNormal(2_500, 0.3, low=500, high=8_000),
            failure=0.0,
        )
    ],
    max_steps=4,
    task_texts=["What does the contract say about notice periods?"],
)

THINK: Draw = LogNormal(86.0, 2.1, low=1.0, high=1_800.0)  # [TraceLab] p50 86 s, p90 21 min; capped at 30 min
CHAT = Archetype(
    about="The human baseline: a person and a chatbot, a few turns, no tools. Lengths of [Azure] conversations, which "
    "are recorded call by call; how many turns there are is assumed.",
    system_tokens=400,  # [ours]
    task_tokens=LogNormal(620, 0.77, low=4, high=12_000),  # [Azure] input p50 1,020, p90 2,735, less the system prompt
    turns=Geometric(2.0, high=6.0),  # 1-6 turns, geometric [ours]
    turn_tokens=Uniform(50.0, 400.0),  # [ours]
    think_seconds=THINK,
    output_tokens=LogNormal(129, 0.93, low=1, high=4_000),  # [Azure] p50 129, p90 424
    reasoning=0.0,
    system_text="You are a helpful assistant.",
    task_texts=["Tell me about latency.", "Explain the cache to me in a few sentences."],
)

CHAT_LONG = structs.replace(
    CHAT,
    about="The other human baseline: long documents in the first message. Lengths of the Mooncake conversation trace, "
    "input p50 6.9k, p90 27.4k, mean 12.0k; output p50 350.",
    task_tokens=LogNormal(6_300, 1.1, low=50, high=120_000),  # [Mooncake]
    output_tokens=LogNormal(350, 0.5, low=1, high=2_000),  # [Mooncake] p50 350, p90 597
)

FIXED = Archetype(
    about="Fixed lengths, for benchmarks and for comparing with other tools; --input-tokens, --output-tokens, --steps.",
    task_tokens=512.0,
    output_tokens=64.0,
    growth_tokens=128.0,
    tools=[SimulatedTool(name="step", description="Go on.", seconds=0.0, tokens=64.0, failure=0.0)],
    tool_calls=1.0,
    max_steps=10,
    task_texts=["Tell me about latency."],
)

ARCHETYPES: dict[str, Archetype] = {
    "coder": CODER,
    "coder-churn": CODER_CHURN,
    "researcher": RESEARCHER,
    "support": SUPPORT,
    "orchestrator": ORCHESTRATOR,
    "browser": BROWSER,
    "batch": BATCH,
    "rag": RAG,
    "chat": CHAT,
    "chat-long": CHAT_LONG,
    "fixed": FIXED,
    "explorer": EXPLORER,
    "searcher": SEARCHER,
}
