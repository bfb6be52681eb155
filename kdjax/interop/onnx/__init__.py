"""Functions of images written as ONNX, and ONNX files run.

    content = convert(lambda images: network.apply(variables, images).logits, (32, 32, 3))
    logits = Session(file)(images)

A function is traced, and each of its operations is written as its counterpart. What depends on
constants alone is computed here. Feature maps lie as convolutions of ONNX want them (NCHW) for as
long as nothing else is needed: an array is a name and the order in which its axes are stored, so
that most transpositions are never made.

`convert` needs the package onnx, `Session` the package onnxruntime.
"""

from kdjax.interop.onnx.convert import Session, convert
from kdjax.interop.onnx.graph import OPSET, Unsupported

__all__ = ["OPSET", "Session", "Unsupported", "convert"]
