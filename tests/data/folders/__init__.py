"""Tests of data sets that are folders."""
