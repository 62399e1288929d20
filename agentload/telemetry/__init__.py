"""What a run shares with the tools around it, beside the load and never in its way.

beside      all of it, as one thing to begin and to end
scrape      the servers' own metrics, once a second, into the run's records
tap         the run's records on their way to the rest
expose      the run's own metrics, for Prometheus
traces      sessions as traces and metrics, for OpenTelemetry: the side of the run
message     what it tells the other side
export      the other side, a process of its own
spans       records as spans and metrics
options     what a spec says of all this
"""
