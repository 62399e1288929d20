"""The cluster in the box: an OpenAI-compatible endpoint with no GPU, whose timing is a model and not a sleep.

presets     how long a step takes, per model and accelerator, with sources
kv          the paged key-value cache: who holds which blocks, what is cached, what is evicted
engine      vLLM's scheduling loop; no clock and no socket, so that any clock can drive it
replica     the engine on the wall clock, woken by an alarm
words       the box's tokenizer and chat template
model       what the synthetic model answers, from a vocabulary, with arguments for its tool calls
protocol    requests in, replies out, as bytes of the OpenAI API
face        the HTTP server, with its metrics
options     how a box is built, and how its model tends to answer
serve       the box on an event loop, or as a process of its own
"""
