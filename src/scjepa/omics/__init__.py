"""Modalities of cells: how counts of RNA, protein and open chromatin become features; arrays in, arrays out."""

from scjepa.omics._links import feature_links
from scjepa.omics._transforms import CLR, LSI, TFIDF, LogNormalize, Transform, transform_from_state

__all__ = ["CLR", "LSI", "TFIDF", "LogNormalize", "Transform", "feature_links", "transform_from_state"]
