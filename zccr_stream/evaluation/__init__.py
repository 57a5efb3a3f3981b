"""How good are the recommendations? Part of each profile is held out, production recommends, and hits are counted.

Come in: who has how many assets, what a sample of users uploaded, and everybody's assets in pages. Go out: means over
the sampled users of what their feeds show, beside feeds that anybody could make. Pure: it does not know databases,
metrics or the clock, and the same assets give the same numbers.

sampling   who is measured, and what is held out of their profiles
search_space  everybody's assets in an index of the evaluation's own, where what is held out belongs to nobody
counting   one feed -> the measures of one user; measures of users -> means with their intervals
evaluator  READ FIRST: batches of users -> feeds by four ways -> what was found
"""

from zccr_stream.evaluation.counting import LENGTHS, MEASURES, NEAR, Estimate, Feed, count
from zccr_stream.evaluation.evaluator import EACH_ASSET, FEEDS, ONE_AREA, PRODUCTION, RANDOM, Evaluation, Evaluator
from zccr_stream.evaluation.sampling import (
    HELD_OUT_MAX,
    EvaluationRule,
    Sample,
    Split,
    Uploads,
    choose_users,
    hold_out,
)
from zccr_stream.evaluation.search_space import NOBODY, SearchSpace

__all__ = [
    "EACH_ASSET",
    "FEEDS",
    "HELD_OUT_MAX",
    "LENGTHS",
    "MEASURES",
    "NEAR",
    "NOBODY",
    "ONE_AREA",
    "PRODUCTION",
    "RANDOM",
    "Estimate",
    "Evaluation",
    "EvaluationRule",
    "Evaluator",
    "Feed",
    "Sample",
    "SearchSpace",
    "Split",
    "Uploads",
    "choose_users",
    "count",
    "hold_out",
]
