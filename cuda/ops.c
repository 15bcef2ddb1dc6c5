/* The table of ops, of the device and of its kernels on the host (test/emulated) alike. */
#include "cuda/cuda.h"

const struct mmqi_ops mmqi_cuda_ops = {
    .embed = mmqi_cuda_embed,
    .place_rows = mmqi_cuda_place_rows,
    .copy = mmqi_cuda_copy,
    .add = mmqi_cuda_add,
    .layer_norm = mmqi_cuda_layer_norm,
    .rms_norm = mmqi_cuda_rms_norm,
    .matmul = mmqi_cuda_matmul,
    .activate = mmqi_cuda_activate,
    .gate = mmqi_cuda_gate,
    .rope = mmqi_cuda_rope,
    .store_kv = mmqi_cuda_store_kv,
    .attention = mmqi_cuda_attention,
    .patches = mmqi_cuda_patches,
    .interpolate = mmqi_cuda_interpolate,
    .pick = mmqi_cuda_pick,
    .advance = mmqi_cuda_advance,
};
