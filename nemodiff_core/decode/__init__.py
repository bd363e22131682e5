"""The decoders, one file each: a mode is a generator of Steps over the same weights, driven by batch.py."""

from nemodiff_core.decode import ar, diffusion, infill, linear_spec, quadratic_spec, refine

MODES = {
    "ar": ar.decode,
    "diffusion": diffusion.decode,
    "linear_spec": linear_spec.decode,
    "quadratic_spec": quadratic_spec.decode,
    "refine": refine.decode,
    "infill": infill.decode,
}
GIVEN = frozenset(("refine", "infill"))  # modes that also take text of the answer: `given`
