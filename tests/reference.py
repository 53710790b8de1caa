"""Oracles in plain NumPy that share no code with the package."""

import numpy as np


def sigmoid(x):
    x = np.asarray(x, "float64")
    return np.where(
        x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x)))
    )


def relu(x):
    return np.maximum(x, 0)


def layer_norm(x, epsilon=1e-3):
    mean = x.mean(axis=-1, keepdims=True)
    variance = x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def rms_norm(x, epsilon=1e-6):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)


def batch_norm_inference(x, epsilon=1e-3):
    """With the moving mean 0 and variance 1 that an untrained layer has."""
    return x / np.sqrt(1 + epsilon)


NORMALIZATIONS = {
    None: lambda x: x,
    "batch": batch_norm_inference,
    "layer": layer_norm,
    "rms": rms_norm,
}


def mlp(x, kernels, biases, normalization=None, projections=None):
    """Hidden layers dense → normalization → relu; `projections` gives the skip connections."""
    x = np.asarray(x, "float64")
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        outputs = relu(NORMALIZATIONS[normalization](x @ kernel + bias))
        if projections is not None:
            skip = x if projections[i] is None else x @ projections[i]
            outputs = skip + outputs
        x = outputs
    return x


def cross_entropy(y, probability):
    y = np.asarray(y, "float64")
    return -(y * np.log(probability) + (1 - y) * np.log1p(-probability)).mean()


def confusion(labels, scores, threshold, weights=None):
    """Weighted counts `tp, fp, fn, tn` of one decision; a score at the threshold is negative."""
    labels, scores = np.ravel(labels), np.ravel(scores)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, "float64").ravel()
    cells = ((1, True), (0, True), (1, False), (0, False))
    return tuple(
        weights[(labels == label) & ((scores > threshold) == positive)].sum()
        for label, positive in cells
    )


def counts_at_all_cuts(labels, scores, weights=None):
    """`tp, fp, fn, tn` as vectors: all rows positive, then one more distinct score negative each.

    With `n` distinct scores there are `n + 1` different decisions.
    """
    labels, scores = np.ravel(labels), np.ravel(scores)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, "float64").ravel()
    order = np.argsort(scores, kind="stable")
    _, first = np.unique(scores[order], return_index=True)
    below = [
        np.append(0.0, np.cumsum(np.add.reduceat((weights * (labels == label))[order], first)))
        for label in (0, 1)
    ]
    tn, fn = below
    return fn[-1] - fn, tn[-1] - tn, fn, tn


def counts_at(labels, scores, thresholds, weights=None):
    """`tp, fp, fn, tn` as vectors over `thresholds`."""
    tables = [confusion(labels, scores, threshold, weights) for threshold in thresholds]
    return tuple(np.array(cells) for cells in zip(*tables, strict=True))


def divide(numerator, denominator, undefined=np.nan):
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    quotient = np.full(numerator.shape, undefined, "float64")
    return np.divide(numerator, denominator, out=quotient, where=denominator != 0)


def precision(tp, fp, fn, tn):
    return divide(tp, tp + fp, 0.0)


def recall(tp, fp, fn, tn):
    return divide(tp, tp + fn)


def specificity(tp, fp, fn, tn):
    return divide(tn, tn + fp)


def npv(tp, fp, fn, tn):
    return divide(tn, tn + fn, 0.0)


def accuracy(tp, fp, fn, tn):
    return divide(tp + tn, tp + fp + fn + tn)


def balanced_accuracy(tp, fp, fn, tn):
    return (recall(tp, fp, fn, tn) + specificity(tp, fp, fn, tn)) / 2


def fbeta(tp, fp, fn, tn, beta):
    return divide((1 + beta**2) * tp, (1 + beta**2) * tp + beta**2 * fn + fp)


def f1(tp, fp, fn, tn):
    return divide(2 * tp, 2 * tp + fn + fp)


def jaccard(tp, fp, fn, tn):
    return divide(tp, tp + fn + fp)


def mcc(tp, fp, fn, tn):
    """The correlation of label and decision: 0 where all decisions are the same."""
    one_class = (tp + fn == 0) | (tn + fp == 0)
    value = divide(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)), 0.0)
    return np.where(one_class, np.nan, value)


def cohen_kappa(tp, fp, fn, tn):
    total = tp + fp + fn + tn
    observed = divide(tp + tn, total)
    expected = divide((tp + fp) * (tp + fn) + (tn + fn) * (tn + fp), total**2)
    return divide(observed - expected, 1 - expected)


def youden_j(tp, fp, fn, tn):
    return recall(tp, fp, fn, tn) + specificity(tp, fp, fn, tn) - 1


def g_mean(tp, fp, fn, tn):
    return np.sqrt(recall(tp, fp, fn, tn) * specificity(tp, fp, fn, tn))


def cost(tp, fp, fn, tn, cost_fp, cost_fn):
    return divide(cost_fp * fp + cost_fn * fn, tp + fp + fn + tn)


SCORES = {
    score.__name__: score
    for score in (
        accuracy,
        balanced_accuracy,
        precision,
        recall,
        specificity,
        npv,
        f1,
        fbeta,
        jaccard,
        mcc,
        cohen_kappa,
        youden_j,
        g_mean,
        cost,
    )
}


def best_of(score, counts, min_precision=0.0, min_recall=0.0, **parameters):
    """The best value over many decisions; NaN if none satisfies the constraints."""
    values = SCORES[score](*counts, **parameters)
    allowed = (precision(*counts) >= min_precision) & (recall(*counts) >= min_recall)
    values = values[allowed & np.isfinite(values)]
    if not len(values):
        return np.nan
    return values.min() if score == "cost" else values.max()


def best_score(score, labels, scores, weights=None, **parameters):
    """The exact best value over all cuts between distinct scores."""
    return best_of(score, counts_at_all_cuts(labels, scores, weights), **parameters)


def bin_edges(num_bins):
    """The probabilities between bins that are evenly spaced in the logit over [−16, 16]."""
    return sigmoid(np.linspace(-16, 16, num_bins + 1)[1:-1])


def best_threshold(score, labels, scores, num_bins, weights=None, **parameters):
    """The midpoint of the edges that decide as the best one does.

    Of decisions of one value those with the larger sum of the two recalls come first, then the
    highest. For scores that do not lie on an edge.
    """
    edges = bin_edges(num_bins)
    counts = counts_at(labels, scores, edges, weights)
    # Values that only rounding tells apart are equal.
    values = np.round(SCORES[score](*counts, **parameters), 12)
    if score == "cost":
        values = -values
    sums = np.round(recall(*counts) + specificity(*counts), 12)
    best = max(range(len(edges)), key=lambda i: (values[i], sums[i], i))
    decisions = np.ravel(scores) > edges[:, None]
    same = edges[(decisions == decisions[best]).all(axis=1)]
    return (same[0] + same[-1]) / 2


def brier_score(labels, probabilities, weights=None):
    errors = (np.asarray(probabilities, "float64").ravel() - np.ravel(labels)) ** 2
    return np.average(errors, weights=None if weights is None else np.ravel(weights))


def calibration_error(labels, probabilities, num_bins=15, weights=None):
    """Guo et al. 2017: bins `(lo, hi]` of equal width, the first one with 0 in it."""
    labels = np.ravel(labels)
    probabilities = np.asarray(probabilities, "float64").ravel()
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, "float64").ravel()
    error = 0.0
    for i in range(num_bins):
        inside = (probabilities > i / num_bins) & (probabilities <= (i + 1) / num_bins)
        if i == 0:
            inside |= probabilities == 0
        if weights[inside].sum() > 0:
            confidence = np.average(probabilities[inside], weights=weights[inside])
            frequency = np.average(labels[inside], weights=weights[inside])
            error += weights[inside].sum() / weights.sum() * abs(confidence - frequency)
    return error


def quantile_calibration_error(labels, probabilities, num_groups=15):
    """Groups of equally many rows, in the order of the probabilities."""
    order = np.argsort(np.ravel(probabilities), kind="stable")
    groups = np.array_split(order, num_groups)
    gaps = [abs((np.ravel(probabilities)[g] - np.ravel(labels)[g]).mean()) for g in groups]
    return np.average(gaps, weights=[len(g) for g in groups])


class Adam:
    """One variable under an optimizer of the Adam family, in float64, as the papers have it.

    Keras's epsilon is Kingma & Ba's "epsilon hat": it is added to the root of `v`, not of `v̂`, by
    Adam and AdamW. `share` is `1 - beta_2`, where an implementation rounds it.
    """

    def __init__(self, kind="adam", beta_1=0.9, beta_2=0.999, epsilon=1e-7, decay=0.0, share=None):
        self.kind, self.beta_1, self.beta_2 = kind, beta_1, beta_2
        self.epsilon, self.decay = epsilon, decay
        self.share = 1 - beta_2 if share is None else share
        self.t, self.m, self.v, self.v_max, self.product = 0, 0.0, 0.0, 0.0, 1.0

    def schedule(self, t):
        return self.beta_1 * (1 - 0.5 * 0.96**t)  # of Nadam, Dozat 2016

    def step(self, weight, gradient, learning_rate):
        """Return m, v, m_hat, v_hat and the update."""
        self.t += 1
        b1, b2, t = self.beta_1, self.beta_2, self.t
        self.m = b1 * self.m + (1 - b1) * gradient
        m_hat, epsilon = self.m / (1 - b1**t), self.epsilon
        if self.kind == "adamax":
            norm = np.maximum(b2 * np.sqrt(self.v), np.abs(gradient))
            self.v = v_hat = norm**2
        else:
            self.v = self.v + self.share * (gradient**2 - self.v)
            self.v_max = np.maximum(self.v_max, self.v)
            v_hat = (self.v_max if self.kind == "amsgrad" else self.v) / (1 - b2**t)
        if self.kind == "nadam":
            self.product *= self.schedule(t)
            ahead = self.schedule(t + 1)
            m_hat = ahead * self.m / (1 - self.product * ahead)
            m_hat = m_hat + (1 - self.schedule(t)) * gradient / (1 - self.product)
        elif self.kind in ("adam", "amsgrad"):
            epsilon = self.epsilon / np.sqrt(1 - b2**t)
        step = m_hat / (np.sqrt(v_hat) + epsilon)
        if self.kind == "lamb":
            norms = np.linalg.norm(weight), np.linalg.norm(step)
            step = step * (norms[0] / norms[1] if min(norms) > 0 else 1.0)
        update = -learning_rate * (step + self.decay * weight)
        return self.m, self.v, m_hat, v_hat, update


def net_gradients(weights, x, y):
    """Gradients of the mean log loss of a net of two layers, tanh between them, in float64.

    And the sums of the absolute values of their terms, which say how exact they can be in float32.
    """
    w1, b1, w2, b2 = (np.asarray(w, "float64") for w in weights)
    z = np.tanh(x @ w1 + b1)
    delta = (sigmoid(z @ w2 + b2) - y[:, None]) / len(y)
    back = delta @ w2.T * (1 - z**2)
    ones = np.ones((1, len(y)))
    pairs = [(x.T, back), (ones, back), (z.T, delta), (ones, delta)]
    shapes = [w.shape for w in (w1, b1, w2, b2)]
    gradients = [(a @ b).reshape(shape) for (a, b), shape in zip(pairs, shapes, strict=True)]
    terms = [np.abs(a) @ np.abs(b) for a, b in pairs]
    return gradients, [t.reshape(shape) for t, shape in zip(terms, shapes, strict=True)]
