"""The cluster in the box: an OpenAI-compatible endpoint with no GPU, whose timing is a model and not a sleep.

presets     how long a step takes, per model and accelerator, with sources
kv          the paged key-value cache: who holds which blocks, what is cached, what is evicted
host        host memory as a second, slower tier of it
request     what an engine works on: requests, steps, counts
engine      vLLM's scheduling loop; no clock and no socket, so that any clock can drive it
pace        how long its steps take, many at once as one by one
gaps        the times between tokens that this makes, as a histogram
cluster     many engines behind a router, which fail, recover and come up; still no clock
tournament  which of its replicas acts next
routers     which replica a request goes to
replica     the cluster on the wall clock, woken by an alarm
prompts     conversations that are sizes and no text, for virtual time
sizes       what a request's sizes decide by themselves
words       the box's tokenizer and chat template
model       what the synthetic model answers, from a vocabulary, with arguments for its tool calls
protocol    requests in, replies out, as bytes of the OpenAI API
responses   the same for the Responses API
reply       from a request to what is answered
door        limits, and faults made on purpose
exchange    one request being answered
metrics     the page for Prometheus
reading     what is on it, read in virtual time
face        the HTTP server
options     how a box is built, and how its model tends to answer
serve       the box on an event loop, or as a process of its own
"""
