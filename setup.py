"""Packages of the distribution; everything else is in pyproject.toml.

`configs/` stands at the top of the repository, where people look for it, and is
installed as `mlf_jax.configs`, which pyproject.toml alone cannot express beside
packages that are found.
"""

import setuptools

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=['mlf_jax*']),
    'mlf_jax.configs',
    'mlf_jax.configs.studies',
  ],
  package_dir={'mlf_jax.configs': 'configs'},
)
