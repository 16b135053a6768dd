"""What is trained on: reading files, identity, the tokenizer, planted canaries, and the prepared whole.

Knows nothing of models. `prepare.prepare` is the way in.
"""
