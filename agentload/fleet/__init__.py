"""One run on several processes and machines: Locust's master and workers carry it.

`launch` is the master's side of a command, `worker` the process that joins it; `hub` keeps gevent and asyncio apart.
"""
