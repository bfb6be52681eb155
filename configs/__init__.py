"""The runs of the papers: `kdjax.configs.mcl.get_config("digits")` is `--config mcl:digits`.

The files lie in `configs/` of the repository and are installed with the package.
"""
