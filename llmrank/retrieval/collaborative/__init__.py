"""Interactions go in, models come out that score candidates by what others chose; each request's own history always counts.

==============  =========================================================================================
popularity      how many users chose it
item-knn        how often the same users chose it and the history's last items
transitions     how often it came soon after the history's last items
ease            a linear autoencoder: weights between items that best rebuild every history (EASE)
user-knn        what those users chose whose histories are most alike
als, bpr        factors of users and items
pmi             how much more often than by chance the same users chose it and the history's items, as factors (item2vec)
==============  =========================================================================================
"""

from __future__ import annotations

from llmrank.retrieval.collaborative.kinds import MODEL_KINDS as MODEL_KINDS
from llmrank.retrieval.collaborative.kinds import kind_of_model as kind_of_model
from llmrank.retrieval.collaborative.kinds import load_model as load_model
from llmrank.retrieval.collaborative.kinds import train as train
from llmrank.retrieval.collaborative.model import CollaborativeModel as CollaborativeModel
from llmrank.retrieval.collaborative.model import Learned as Learned
