"""Results as images: 3D boxes, bird's-eye view, heatmaps and depth maps over an image, plots, an HTML page."""
