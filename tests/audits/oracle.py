"""A model whose knowledge is known: what audits of it must say can be worked out by hand."""

import numpy as np
import torch

from carto_core.audits.subject import Subject, load_subject


class Oracle(torch.nn.Module):
    """A language model that has learnt some texts by heart and gives every other token the same chance.

    The next token of a known text has a score of `certainty`, all others 0.
    """

    def __init__(self, vocab_size, texts, bos_id, certainty=30.0):
        super().__init__()
        self.vocab_size = vocab_size
        self.certainty = certainty
        self.next = {}
        for text in texts:
            for i, token in enumerate(text):
                self.next[bos_id, *text[:i]] = token

    def forward(self, tokens, state=None):
        histories = [()] * len(tokens) if state is None else [tuple(h.tolist()) for h in state[0]]
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for row, history in enumerate(histories):
            seen = history
            for place, token in enumerate(tokens[row].tolist()):
                seen = (*seen, token)
                if seen in self.next:
                    logits[row, place, self.next[seen]] = self.certainty
            histories[row] = seen
        return logits, torch.tensor(histories)[None]


def oracle_of(run, *, knows):
    subject = load_subject(run)
    texts = [subject.corpus.tokenizer.encode(text) for text in knows(subject.corpus)]
    model = Oracle(len(subject.corpus.tokenizer), texts, subject.corpus.tokenizer.bos_id)
    return Subject(model, torch.device("cpu"), subject.config, subject.corpus)


def unplanted_texts(corpus):
    """The corpus's own texts, without planted canaries (some of which begin as a real text does)."""
    return [text for text, canary in zip(corpus.texts, corpus.canary_id, strict=True) if np.isnan(canary)]
