"""Renders road scenes in KITTI's layout: images, labels and calibrations from which depth can be learnt by perspective.

A :class:`Scene` comes from random numbers (``street``, ``traffic``) or from a KITTI label file (``layouts``).
``render`` draws it and measures the labels; ``dataset`` writes the files, with one real calibration of KITTI.
"""
