"""How good a model is, and how much it lost: perplexity, divergence from a reference, tasks, slices, answers.

from edgeq.evaluate import divergence
with edgeq.load("model.eqf") as model, edgeq.load("reference.eqf") as reference:
    print(divergence(model, reference, text).kl)
"""

from edgeq.evaluate.measure import Divergence as Divergence
from edgeq.evaluate.measure import divergence as divergence
from edgeq.evaluate.measure import perplexity as perplexity
from edgeq.evaluate.report import Options as Options
from edgeq.evaluate.report import Report as Report
from edgeq.evaluate.report import evaluate as evaluate
from edgeq.evaluate.task_scores import flips as flips
from edgeq.evaluate.task_scores import score_task as score_task
from edgeq.evaluate.tasks import read_task as read_task
from edgeq.evaluate.texts import read_passages as read_passages
