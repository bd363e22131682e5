"""The decoders, one file each: a mode is a generator of Steps over the same weights."""

from nemodiff_core.decode import ar, diffusion, linear_spec

MODES = {"ar": ar.decode, "diffusion": diffusion.decode, "linear_spec": linear_spec.decode}
