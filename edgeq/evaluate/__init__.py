"""How good a model is, and how much it lost: perplexity, divergence from a reference, tasks, slices, answers.

from edgeq.evaluate import divergence
with edgeq.load("model.eqf") as model, edgeq.load("reference.eqf") as reference:
    print(divergence(model, reference, text).kl)
"""

from edgeq.evaluate.measure import Divergence as Divergence
from edgeq.evaluate.measure import divergence as divergence
from edgeq.evaluate.measure import perplexity as perplexity
from edgeq.evaluate.texts import read_passages as read_passages
