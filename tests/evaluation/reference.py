"""Reference implementations of the metrics over plain lists."""

import math


def recall(answer, relevant, k):
    return len(set(answer[:k]) & relevant) / len(relevant)


def hit_rate(answer, relevant, k):
    return 1.0 if set(answer[:k]) & relevant else 0.0


def ndcg(answer, relevant, k):
    gained = sum(1 / math.log(place + 1, 2) for place, item in enumerate(answer[:k], start=1) if item in relevant)
    ideal = sum(1 / math.log(place + 1, 2) for place in range(1, min(k, len(relevant)) + 1))
    return gained / ideal


def mrr(answer, relevant, k):
    for place, item in enumerate(answer[:k], start=1):
        if item in relevant:
            return 1 / place
    return 0.0


def average_precision(answer, relevant, k):
    total = 0.0
    for place in range(1, len(answer[:k]) + 1):
        if answer[place - 1] in relevant:
            total += len(set(answer[:place]) & relevant) / place
    return total / min(k, len(relevant))


METRICS = {"recall": recall, "hit_rate": hit_rate, "ndcg": ndcg, "mrr": mrr, "map": average_precision}


def gini(counts):
    """Compute the mean absolute difference divided by twice the mean."""
    n, total = len(counts), sum(counts)
    return sum(abs(a - b) for a in counts for b in counts) / (2 * n * total) if total else 0.0


def top(scores, masked, n):
    eligible = [row for row in range(len(scores)) if row not in masked]
    return sorted(eligible, key=lambda row: (-scores[row], row))[:n]
