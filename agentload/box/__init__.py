"""The cluster in the box: an OpenAI-compatible endpoint with no GPU, whose timing is a model and not a sleep.

presets   how long a step takes, per model and accelerator, with sources
kv        the paged key-value cache: who holds which blocks, what is cached, what is evicted
engine    vLLM's scheduling loop; no clock and no socket, so that any clock can drive it
words     the box's tokenizer and chat template
model     what the synthetic model answers
replica   the engine on the wall clock
protocol  requests in, replies out, as bytes of the OpenAI API
face      the HTTP server
serve     options, and the box as a process of its own
"""
