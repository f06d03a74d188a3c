"""One experiment as tools/train_val.py runs it: training, evaluation, images, report."""
