"""One kind of a profile's assets -> groups that are one area each (paper, section 3.2). Pure.

Comes in: their vectors, and where known what their catalogue looks like. Goes out: a label an asset. PCA, Ward, a cut;
then, where the catalogue gives the cut, back in the full space which areas are one, who is where and what is left over.
Knows nothing of users, seeds and what is searched.

find     the order of it
rule     how assets are grouped: sizes, and up to which distance they are one area
trees    PCA, Ward's tree, what its merges hold, its cuts; which assets are copies
regroup  what no cut says: settle, join, part, one, put out
"""

from zccr_stream.grouping.find import find_groups
from zccr_stream.grouping.rule import CUT, GroupRule, Limits

__all__ = ["CUT", "GroupRule", "Limits", "find_groups"]
