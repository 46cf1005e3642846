"""Specs of models from other tools.

Their files are untrusted: a value that cannot be used, or that needs what edgeml does not do, is a
`SpecError` that names the file, the key and the value.
"""
