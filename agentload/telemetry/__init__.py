"""What a run shares with the tools around it, beside the load and never in its way.

scrape      the servers' own metrics, once a second, into the run's records
expose      the run's own metrics, for Prometheus
traces      sessions as traces and metrics, to OpenTelemetry
tap         the records on their way to the last two
options     what a spec says of all three
"""
