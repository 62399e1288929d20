"""Agents as Locust users: `locust -f locustfile.py --headless -u 5 -t 30s`.

SPEC in the environment names another spec, OUT another folder for the run. Add shape.py to have the spec's profile say
how many there are: `locust -f locustfile.py,shape.py --headless`.
"""

import os
from pathlib import Path

from locust import events

from agentload.fleet.locust_user import Agents, AgentUser

AGENTS = Agents(
    events, os.environ.get("SPEC", Path(__file__).parent / "first-light.toml"), os.environ.get("OUT", "runs")
)


class Agent(AgentUser):
    agents = AGENTS
