"""Names of torch's operations that need no rule of their own. Knows words only."""

POINTWISE = """
    add iadd radd sub isub rsub mul imul rmul div idiv rdiv truediv itruediv rtruediv true_divide floor_divide
    pow rpow neg abs exp exp2 expm1 log log1p sqrt rsqrt square reciprocal sign erf sin cos sinc round floor
    ceil trunc relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh hardswish hardsigmoid hardtanh
    softplus softsign logsigmoid hardshrink softshrink tanhshrink threshold rrelu clamp clip clamp_min clamp_max
    maximum minimum where masked_fill addcmul addcdiv lerp nan_to_num eq ne lt le gt ge logical_not logical_and
    logical_or"""
"""Each value comes of the values in its place."""

ASK = """
    size dim ndimension numel nelement element_size stride storage_offset is_contiguous is_floating_point
    is_complex len get_device data_ptr new_zeros new_ones new_full new_empty new_tensor shape ndim dtype device
    layout is_cuda is_nested grad_fn is_leaf is_sparse is_quantized is_mkldnn is_meta is_cpu is_mps is_xpu names
    hash repr format"""
"""They look at a tensor's outside, or make one of its size that holds nothing of it."""

CARRY = """
    to type type_as float half double bfloat16 cpu cuda clone contiguous detach data requires_grad alias dropout
    dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout zeros_like ones_like
    full_like empty_like rand_like randn_like"""
"""The result has the channels of what it was made from."""
