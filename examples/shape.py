"""A shape beside locustfile.py: as many users as the spec's population wants, for as long as it says."""

from locustfile import AGENTS

from agentload.fleet.locust_user import ProfileShape


class Shape(ProfileShape):
    agents = AGENTS
