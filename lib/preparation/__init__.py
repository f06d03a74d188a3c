"""Before a training: checks of a whole data set, the census of its labels, and its object-wise depth maps."""
