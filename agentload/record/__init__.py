"""Recording: a pass-through proxy in front of an endpoint, and what it makes of the calls that go through it."""
