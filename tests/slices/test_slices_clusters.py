"""Clusters of features, and the map."""

import numpy as np

from ensemble.slices.clusters import Clusters, cluster_slices, find_clusters, flat_map, shown_rows, space_of


def test_heaps_of_features_are_clusters_and_new_images_join_the_nearest():
    draw = np.random.default_rng(0)
    heaps = draw.normal(size=(2, 30)) * 5
    features = (heaps[np.arange(120) % 2] + draw.normal(size=(120, 30))).astype(np.float32)
    space = space_of(features)
    points = space.points(features)
    clusters = find_clusters(points)
    assert len(np.unique(clusters.of_row)) == 2 and np.array_equal(
        clusters.of_row == clusters.of_row[0], np.arange(120) % 2 == 0
    )
    assert np.array_equal(clusters.nearest(points), clusters.of_row)
    new = space.points(heaps + draw.normal(size=(2, 30)))
    assert clusters.nearest(new).tolist() == [clusters.of_row[0], clusters.of_row[1]]


def test_a_cluster_is_named_by_the_class_that_most_of_its_rows_have():
    clusters = Clusters(np.array([0] * 4 + [1] * 6), np.zeros((2, 1)))
    found = cluster_slices(clusters, np.array([0, 1, 1, 1, 0, 0, 0, 0, 0, 0]), ("cat", "dog"), 4)
    assert [each.rule.text for each in found] == ["cluster 0 (75 % dog)", "cluster 1 (100 % cat)"]
    assert cluster_slices(clusters, np.zeros(10, dtype=int), ("cat", "dog"), 5) == []


def test_the_map_shows_wrong_rows_first_and_lies_in_the_unit_square():
    wrong = np.zeros(5000, dtype=bool)
    wrong[::50] = True
    shown = shown_rows(wrong)
    assert len(shown) == 2000 and wrong[shown].sum() == 100 and (np.diff(shown) > 0).all()
    assert np.array_equal(shown_rows(wrong[:30]), np.arange(30))
    flat = flat_map(np.random.default_rng(0).normal(size=(40, 5)))
    assert flat.min(axis=0).tolist() == [0, 0] and flat.max(axis=0).tolist() == [1, 1]
