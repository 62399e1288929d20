"""Recorded demand: traces of many formats, read into one session graph, examined, and written in our own format.

A reader takes a `Source` and yields sessions one at a time, so that a file larger than memory can be read; `detect`
knows them by name and by what the file looks like.
"""
