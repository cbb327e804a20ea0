"""Who chose what: files of any usual form, data frames or rows go in, `Interactions` come out, which models learn from."""

from __future__ import annotations

from llmrank.interactions.table import Interaction as Interaction
from llmrank.interactions.table import Interactions as Interactions
